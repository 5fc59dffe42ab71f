"""Where llama-server says that a model lies: a log of a real run on a processor, and lines made for GPUs.

`fixtures/llama-cpp-b11434-start.log` was written by llama-server b11434 (the shipped model in bf16, `--verbosity 4`;
lines of other kinds left out). The lines of GPUs were never seen: they are the format strings of the same release,
named beside each, filled in by hand.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from moe_cap.errors import InvalidRunError
from moe_cap.hardware import FoundDevice, Machine
from moe_cap.measure.engines.llama_log import parse_log
from moe_cap.measure.placement import device_of
from moe_cap.result import EngineRecord

RECORDED = (Path(__file__).parent / "fixtures" / "llama-cpp-b11434-start.log").read_text()
H200 = "NVIDIA H200"


def using(name: str, title: str = H200, place: str = "0000:17:00.0") -> str:
    """src/llama.cpp: "%s: using device %s (%s) (%s) - %zu MiB free\\n"."""
    return f"0.00.1 I llama_prepare_model_devices: using device {name} ({title}) ({place}) - 142500 MiB free\n"


def offloaded(there: int, layers: int = 29) -> str:
    """src/llama-model.cpp: "%s: offloaded %d/%d layers to GPU\\n"."""
    return f"0.00.2 I load_tensors: offloaded {there}/{layers} layers to GPU\n"


def buffer(place: str, mib: float) -> str:
    """src/llama-model.cpp: "%s: %12s model buffer size = %8.2f MiB\\n"."""
    return f"0.00.3 I load_tensors: {place:>12s} model buffer size = {mib:8.2f} MiB\n"


def context(name: str, number: int) -> str:
    """src/llama-context.cpp: "%s: n_ubatch              = %u\\n", and the like."""
    return f"0.00.4 I llama_context: {name:<22s}= {number}\n"


def drafts(kind: str) -> str:
    """common/speculative.cpp: "adding speculative implementation '%s'\\n"."""
    return f"0.00.5 I spec common_specu: adding speculative implementation '{kind}'\n"


def record_of(log: str) -> EngineRecord:
    return EngineRecord(
        name="llama-cpp",
        version="b1",
        arguments=parse_log(log),
        weights_dtype="int4",
        kv_dtype=None,
        compute_dtype=None,
    )


def machine(*gpus: str) -> Machine:
    found = tuple(FoundDevice("h200-sxm-141gb", None, "nvidia", name, None, None, None) for name in gpus)
    return Machine(found, "Intel(R) Xeon(R) Processor", "intel", 1, 2, 2, None, "Linux", "x86_64")


def test_a_build_for_processors_says_so_and_which() -> None:
    told = parse_log(RECORDED)
    assert told["device"] == "cpu"
    assert told["devices"] == []
    assert told["processor"] == "Intel(R) Xeon(R) Processor"
    assert told["model_buffers_mib"] == {"CPU_Mapped": 0.89}
    assert told["cache_types"] == "f16/f16"
    assert str(told["system_info"]).startswith("n_threads = 1 (n_threads_batch = 1) / 2 | CPU : SSE3 = 1")


def test_a_processor_is_told_on_a_machine_with_gpus_without_naming_it() -> None:
    assert device_of(record_of(RECORDED), machine(H200, "NVIDIA L4"), None) == "cpu"


def test_the_gpu_that_is_used_is_named() -> None:
    told = parse_log(using("CUDA1") + offloaded(29) + buffer("CUDA1", 16000) + buffer("CPU_Mapped", 157.4))
    assert (told["device"], told["devices"]) == ("cuda:1", ["CUDA1 (NVIDIA H200, 0000:17:00.0)"])
    assert told["model_buffers_mib"] == {"CUDA1": 16000.0, "CPU_Mapped": 157.4}
    assert told["layers_on_devices"] == "29/29"


def test_titles_hold_brackets_and_rocm_is_a_gpu_of_torch() -> None:
    told = parse_log(using("ROCm0", "AMD Instinct MI300X (gfx942)", "unknown id") + buffer("ROCm0", 1))
    assert (told["device"], told["devices"]) == ("cuda:0", ["ROCm0 (AMD Instinct MI300X (gfx942), unknown id)"])


def test_several_devices_are_all_told() -> None:
    told = parse_log(using("CUDA0") + using("CUDA1", place="0000:18:00.0") + buffer("CUDA0", 1) + buffer("CUDA1", 1))
    assert told["device"] == "cuda:0"
    assert len(told["devices"]) == 2


def test_a_gpu_that_holds_no_layer_is_not_where_the_model_runs() -> None:
    told = parse_log(using("CUDA0") + offloaded(0) + buffer("CPU_Mapped", 16000))
    assert (told["device"], told["devices"]) == ("cpu", [])


@pytest.mark.parametrize(("name", "device"), [("Vulkan0", "vulkan:0"), ("MTL0", "mtl:0"), ("Meta", "Meta")])
def test_what_torch_does_not_have_cannot_be_probed(name: str, device: str) -> None:
    log = using(name) + buffer(name, 1)
    assert parse_log(log)["device"] == device
    with pytest.raises(InvalidRunError, match="cannot be probed"):
        device_of(record_of(log), machine(H200), None)


def test_a_log_that_tells_nothing_gives_nothing() -> None:
    assert parse_log("0.00.006 I srv  llama_server: initializing ...\n") == {}


def test_sizes_are_those_of_the_model_and_not_of_one_that_drafts_for_it() -> None:
    sizes = {"n_seq_max": 128, "n_ctx": 65536, "n_ctx_seq": 65536, "n_batch": 2048, "n_ubatch": 128}
    draft = dict.fromkeys(sizes, 1)
    told = parse_log("".join(context(*size) for each in (sizes, draft) for size in each.items()) + drafts("ngram-mod"))
    assert told == {"n_seq_max": 128, "n_ctx": 65536, "n_ubatch": 128, "speculative": "ngram-mod"}


def test_parts_of_a_split_file_add_up() -> None:
    told = parse_log(buffer("CPU_Mapped", 1.5) + buffer("CPU_Mapped", 2.25))
    assert told["model_buffers_mib"] == {"CPU_Mapped": 3.75}
