"""The deployment chart against the lines that can be read off the published one."""

import json
from dataclasses import asdict

import pytest

from moe_cap.errors import InvalidInputError
from moe_cap.hardware import all_cpus, all_devices
from moe_cap.planner import deployment_chart
from moe_cap.precision import storage_of
from tests.planner.models import DEEPSEEK_R1, MIXTRAL_8X22B, QWEN15_MOE, model

MODELS = {
    name: (arch, storage_of(arch, "bf16"))
    for name, arch in {
        "DeepSeek-R1": model(DEEPSEEK_R1), "Mixtral-8x22B": model(MIXTRAL_8X22B), "Qwen1.5-MoE": model(QWEN15_MOE),
    }.items()
}  # fmt: skip
CHART = deployment_chart(MODELS, all_devices(), cpus=all_cpus(), batches=(1, 8, 64))


# MoE-CAP v6, Figure 4: GB/s at 0.1 s per token, read off within 2 %.
@pytest.mark.parametrize(
    ("name", "batch", "gb_per_s"),
    [("DeepSeek-R1", None, 13_574), ("DeepSeek-R1", 1, 1_025), ("Mixtral-8x22B", 1, 781), ("Qwen1.5-MoE", 1, 63)],
)
def test_published_lines(name: str, batch: int | None, gb_per_s: float) -> None:
    (line,) = (line for line in CHART.lines if (line.model, line.batch) == (name, batch))
    assert line.bytes_per_s_published / 1e9 == pytest.approx(gb_per_s, rel=0.02)


def test_lines_grow_with_the_batch_and_end_at_all_experts() -> None:
    for name in MODELS:
        full, *sparse = [line for line in CHART.lines if line.model == name]
        assert full.batch is None
        widths = [line.bytes_per_s for line in sparse]
        assert widths == sorted(widths)
        assert sparse[0].bytes_per_s < full.bytes_per_s
        assert sparse[0].bytes_per_s_published >= sparse[0].bytes_per_s, (
            "the published count adds, it leaves nothing out"
        )


def test_every_device_is_a_point_or_says_why_not() -> None:
    placed = {point.device_id for point in CHART.points}
    assert placed | set(CHART.left_out) == {part.id for part in (*all_devices(), *all_cpus())}
    assert not placed & set(CHART.left_out)
    assert CHART.left_out["tpu7x"] == "not published"


def test_points_stand_at_the_datasheet_and_servers_at_eight_times_it() -> None:
    found = {(point.device_id, point.count): point for point in CHART.points}
    one, eight = found["h100-sxm-80gb", 1], found["h100-sxm-80gb", 8]
    assert (one.power_w, one.bytes_per_s, one.device_class) == (700, 3350e9, "datacentre")
    assert (eight.power_w, eight.bytes_per_s) == (8 * 700, 8 * 3350e9)
    assert found["gb200-nvl72", 72].bytes_per_s == 72 * 8000e9
    assert ("rtx-4090-24gb", 8) not in found
    assert found["epyc-9004", 1].device_class == "host"
    assert found["h100-nvl-94gb", 1].confidence == "unverified"


def test_the_chart_is_plain_data() -> None:
    assert json.loads(json.dumps(asdict(CHART)))["tpot_s"] == 0.1


def test_a_chart_needs_a_batch_and_a_target() -> None:
    with pytest.raises(InvalidInputError, match="batches"):
        deployment_chart(MODELS, [], batches=())
    with pytest.raises(InvalidInputError, match="tpot_s"):
        deployment_chart(MODELS, [], tpot_s=0.0)
