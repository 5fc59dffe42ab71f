"""Plans against sums by hand, a brute-force search, and what must hold for any device."""

import math
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_cap.architecture import Architecture
from moe_cap.errors import InvalidInputError
from moe_cap.hardware import Device, DeviceKind, all_devices, find_cpu, find_device, probed_device
from moe_cap.metrics.bytes_and_flops import step_bytes, step_flops
from moe_cap.planner import Assumptions, Fit, Limit, Option, feasible, memory
from moe_cap.planner.options import layouts
from moe_cap.precision import storage_of, stored_bytes, uniform_storage
from moe_cap.routing import decode_step, with_uniform_routing
from tests.planner.models import DEEPSEEK_R1, DENSE, MIXTRAL_8X22B, QWEN15_MOE, SMALL, model

BF16 = uniform_storage("bf16")
SMALL_MODEL, MIXTRAL = model(SMALL), model(MIXTRAL_8X22B)
EXACT = Assumptions(reachable_bandwidth=1.0, usable_memory=1.0)


def device(*, memory_bytes: float, bytes_per_s: float, flops_per_s: float = 1e15, link: float | None = None) -> Device:
    return probed_device(
        "test", name="Test", vendor="Test", kind=DeviceKind.GPU, as_of="2026-11", memory_bytes=memory_bytes,
        peak_bytes_per_s=bytes_per_s, peak_flops_per_s={"bf16": flops_per_s}, host_link_bytes_per_s=link,
    )  # fmt: skip


def plan(one: Device, tpot_s: float, assumed: Assumptions = EXACT, **target: int) -> Option:
    target = {"batch": 1, "context_tokens": 64} | target
    (option,) = feasible([one], SMALL_MODEL, BF16, tpot_s=tpot_s, assumptions=assumed, **target)
    return option


def by_id(options: tuple[Option, ...]) -> Mapping[str, Option]:
    return {option.device_id: option for option in options}


READ = step_bytes(SMALL_MODEL, with_uniform_routing(decode_step((64,)), SMALL_MODEL), BF16)
HELD = memory(SMALL_MODEL, BF16, batch=1, context_tokens=64).total_bytes


def test_one_device_that_is_just_fast_and_large_enough() -> None:
    option = plan(device(memory_bytes=HELD * 1.001, bytes_per_s=READ.total_read / 0.01), 0.01001)
    assert option.resident.count == 1
    assert option.resident.step_s == pytest.approx(0.01)
    assert option.resident.tokens_per_s == pytest.approx(100)
    assert option.resident.memory_bytes_per_device == HELD
    assert option.resident.used[Limit.BANDWIDTH] == pytest.approx(1, rel=2e-3)


def test_more_devices_where_one_is_too_slow_or_too_small() -> None:
    slow = plan(device(memory_bytes=1e12, bytes_per_s=READ.total_read / 0.01), 0.006)
    assert (slow.resident.count, slow.resident.limit) == (2, Limit.BANDWIDTH)
    small = plan(device(memory_bytes=HELD * 0.6, bytes_per_s=1e15), 0.01)
    assert (small.resident.count, small.resident.limit) == (2, Limit.MEMORY)
    flops = step_flops(SMALL_MODEL, decode_step((64,), (2.0,) * 4)).total
    weak = plan(device(memory_bytes=1e12, bytes_per_s=1e15, flops_per_s=flops / 0.01), 0.006)
    assert (weak.resident.count, weak.resident.limit) == (2, Limit.COMPUTE)


def test_offloading_moves_experts_and_pays_at_the_link() -> None:
    experts = 4 * 8 * 3 * 512 * 1024 * 2
    capacity = HELD - experts / 2
    link = 1e9
    option = plan(
        device(memory_bytes=capacity, bytes_per_s=1e15, link=link),
        1.0,
        Assumptions(1.0, usable_memory=1.0, counts=(1,)),
    )
    assert option.resident is None
    fit = option.offloaded
    assert fit.offloaded_bytes == pytest.approx(experts / 2)
    assert fit.offload_bytes_per_step == pytest.approx(READ.experts / 2), (
        "half of the experts, half of what a step uses"
    )
    assert fit.step_s == pytest.approx(READ.experts / 2 / link)
    assert fit.limit is Limit.LINK
    assert fit.memory_bytes_per_device == pytest.approx(capacity)


def test_what_is_not_an_expert_cannot_be_offloaded() -> None:
    experts = 4 * 8 * 3 * 512 * 1024 * 2
    option = plan(
        device(memory_bytes=(HELD - experts) * 0.9, bytes_per_s=1e15, link=1e12), 1.0, Assumptions(counts=(1,))
    )
    assert option.resident is None
    assert option.offloaded is None
    assert option.reason == "1 of them are not enough"


def test_without_a_host_link_there_is_no_offloading() -> None:
    option = plan(device(memory_bytes=HELD * 0.9, bytes_per_s=1e15), 1.0, Assumptions(counts=(1,)))
    assert option.offloaded is None
    for soc in ("dgx-spark-gb10", "m3-ultra-512gb"):
        assert find_device(soc).host_link_bytes_per_s.value is None, "unified memory has nowhere to offload to"


def test_the_hosts_memory_can_be_slower_than_its_links() -> None:
    one = device(memory_bytes=HELD * 0.6, bytes_per_s=1e15, link=1e15)
    free = plan(one, 1.0, Assumptions(1.0, usable_memory=1.0, counts=(1,)))
    host = find_cpu("epyc-9004")
    bound = plan(one, 1.0, Assumptions(1.0, usable_memory=1.0, counts=(1,), host=host, sockets=1))
    assert bound.offloaded.limit is Limit.HOST_MEMORY_BANDWIDTH
    assert bound.offloaded.step_s == pytest.approx(bound.offloaded.offload_bytes_per_step / 460.8e9)
    assert bound.offloaded.step_s > free.offloaded.step_s


def asked(arch: Architecture, count: int) -> list[tuple[float, float, float]]:
    """Bytes held, bytes read and FLOPs of every layout of `count` devices."""
    step = with_uniform_routing(decode_step((1024,) * 4), arch)
    flops = step_flops(arch, step).total
    return [
        (
            memory(arch, BF16, batch=4, context_tokens=1024, parallel=layout).total_bytes,
            step_bytes(arch, step, BF16, layout).total_read,
            flops,
        )
        for layout in layouts(count, is_moe=bool(arch.moe_blocks))
    ]


@pytest.mark.parametrize("config", [SMALL, DENSE, MIXTRAL_8X22B], ids=["small", "dense", "mixtral"])
@pytest.mark.parametrize("tpot_s", [0.001, 0.02, 0.2])
def test_the_fewest_devices_that_are_enough(config: dict[str, object], tpot_s: float) -> None:
    arch = model(config)
    options = feasible(all_devices(), arch, BF16, batch=4, context_tokens=1024, tpot_s=tpot_s)
    loads = {count: asked(arch, count) for count in (1, 2, 4, 8, 16, 32, 64)}
    for one, option in zip(all_devices(), options, strict=True):
        enough = [
            count
            for count, layouts_of_count in loads.items()
            for held, read, flops in layouts_of_count
            if held <= 0.9 * count * one.memory_bytes.value
            and read <= 0.8 * count * one.peak_bytes_per_s.value * tpot_s
            and flops <= count * one.peak_flops("bf16") * tpot_s
        ]
        assert (option.resident.count if option.resident else None) == min(enough, default=None), one.id


@settings(max_examples=15)
@given(st.sampled_from(["bf16", "int4"]), st.integers(1, 32), st.integers(1, 8192), st.floats(0.005, 1))
def test_every_plan_keeps_its_limits(precision: str, batch: int, context_tokens: int, tpot_s: float) -> None:
    assumed = Assumptions()
    options = feasible(
        all_devices(),
        MIXTRAL,
        storage_of(MIXTRAL, precision),
        batch=batch,
        context_tokens=context_tokens,
        tpot_s=tpot_s,
    )
    for one, option in zip(all_devices(), options, strict=True):
        assert (option.reason is None) == bool(option.resident or option.offloaded)
        for fit in (option.resident, option.offloaded):
            if fit is not None:
                check(fit, one, tpot_s, batch, assumed)
        if option.resident:
            assert option.resident.offloaded_bytes == 0
            assert option.offloaded.count <= option.resident.count


def check(fit: Fit, one: Device, tpot_s: float, batch: int, assumed: Assumptions) -> None:
    assert fit.step_s <= tpot_s * (1 + 1e-9)
    assert fit.tokens_per_s * fit.step_s == pytest.approx(batch)
    assert max(fit.used.values()) <= 1 + 1e-9
    assert fit.memory_bytes_per_device <= one.memory_bytes.value * assumed.usable_memory * (1 + 1e-9)
    assert fit.parallel.num_devices == fit.count
    assert fit.power_w is None or fit.power_w == fit.count * one.tdp_w.value
    for name in ("power_w", "all_in_power_w", "purchase_usd"):
        assert (getattr(fit, name) is None) == (name in fit.unknown)


@settings(max_examples=15)
@given(st.floats(0.005, 0.5), st.integers(1, 16))
def test_a_harder_target_never_needs_fewer_devices(tpot_s: float, batch: int) -> None:
    def counts(seconds: float, sequences: int) -> list[float]:
        options = feasible(all_devices(), MIXTRAL, BF16, batch=sequences, context_tokens=2048, tpot_s=seconds)
        return [option.resident.count if option.resident else math.inf for option in options]

    base = counts(tpot_s, batch)
    for harder in (counts(tpot_s / 2, batch), counts(tpot_s, batch * 2)):
        assert all(more >= few for few, more in zip(base, harder, strict=True))


def test_known_deployments() -> None:
    mixtral = by_id(feasible(all_devices(), MIXTRAL, BF16, batch=1, context_tokens=4096, tpot_s=0.1))
    assert mixtral["a100-sxm-80gb"].resident.count == 4, "281 GB on 80 GB cards, as in the paper's Table 2"
    assert mixtral["h200-sxm-141gb"].resident.count == 4
    assert mixtral["mi300x-192gb"].resident.count == 2
    qwen = model(QWEN15_MOE)
    small = by_id(feasible(all_devices(), qwen, storage_of(qwen, "bf16"), batch=1, context_tokens=4096, tpot_s=0.1))
    assert small["a100-pcie-80gb"].resident.count == 1, "as in the paper's Table 4"
    assert small["rtx-4090-24gb"].resident.count == 2
    assert small["rtx-4090-24gb"].offloaded.count == 1


def test_a_missing_peak_and_missing_prices_say_why() -> None:
    arch = model(DEEPSEEK_R1)
    options = by_id(feasible(all_devices(), arch, storage_of(arch, "fp8"), batch=8, context_tokens=4096, tpot_s=0.1))
    assert "no fp8 peak" in options["a100-sxm-80gb"].reason
    assert options["h200-sxm-141gb"].resident.count == 8, "the usual server for DeepSeek-R1 in fp8"
    tpu = options["tpu7x"].resident
    assert tpu.power_w is None
    assert "not published" in tpu.unknown["power_w"]
    assert "for rent only" in tpu.unknown["purchase_usd"]
    assert tpu.rental_usd_per_hour == {"reserved": tpu.count * 2.0}


def test_costs_and_power_are_those_of_all_devices_and_their_hosts() -> None:
    assumed = Assumptions(counts=(16,))
    (option,) = feasible(
        [find_device("h100-sxm-80gb")], MIXTRAL, BF16, batch=1, context_tokens=64, tpot_s=0.1, assumptions=assumed
    )
    fit = option.resident
    assert fit.purchase_usd == 16 * 38_000 + 2 * 9_180, "two servers of eight"
    assert fit.power_w == 16 * 700
    assert fit.all_in_power_w == 16 * 1730
    assert fit.rental_usd_per_hour == {"on_demand": 32.0, "reserved": 32.0}


def test_a_device_without_known_memory_is_left_out() -> None:
    unknown = probed_device(
        "x",
        name="x",
        vendor="x",
        kind=DeviceKind.GPU,
        as_of="2026",
        memory_bytes=None,
        peak_bytes_per_s=1e12,
        peak_flops_per_s={},
    )
    assert plan(unknown, 0.1).reason == "its memory or bandwidth is not known"


def test_impossible_assumptions_are_refused() -> None:
    for wrong in (
        {"reachable_bandwidth": 0.0},
        {"usable_memory": 1.5},
        {"reachable_flops": -1},
        {"counts": ()},
        {"counts": (0,)},
    ):
        with pytest.raises(InvalidInputError, match=next(iter(wrong))):
            Assumptions(**wrong)
    with pytest.raises(InvalidInputError, match="batch"):
        feasible([], SMALL_MODEL, BF16, batch=0, context_tokens=1, tpot_s=0.1)


def test_weights_of_a_plan_are_the_stored_ones() -> None:
    option = plan(device(memory_bytes=1e12, bytes_per_s=1e15), 0.1)
    kv = 64 * SMALL_MODEL.kv_bytes_per_token(BF16.kv)
    assert option.resident.memory_bytes_per_device == stored_bytes(SMALL_MODEL, BF16) + kv
