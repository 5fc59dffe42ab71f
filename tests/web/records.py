"""Results for the page's tests: what a worker could have published, small and with every part that a page shows."""

from datetime import UTC, datetime

from moe_cap.quantity import QUANTITIES, Quantity
from moe_cap.result import (
    METRICS_VERSION,
    AccuracyRecord,
    EngineRecord,
    HardwareRecord,
    Load,
    ModelRecord,
    Point,
    RawRequest,
    Result,
    result_id,
)
from moe_cap.routing import RoutingSource
from moe_cap.submission import Submission

LAYERS, EXPERTS = 3, 8
HOSTILE = "<img src=x onerror=alert(1)>"


def quantity(name: str, value: float | None, **more: object) -> Quantity:
    fields = {"source": "measured", "reason": None if value is not None else "this machine tells no power", **more}
    return Quantity(value=value, unit=QUANTITIES[name].unit, **fields)  # type: ignore[arg-type]


def make_point(concurrency: int, tokens_per_s: float, *, invalid: tuple[str, ...] = ()) -> Point:
    return Point(
        load=Load(kind="closed_loop", concurrency=concurrency, input_tokens=32, output_tokens=32),
        quantities={
            "output_tokens_per_s": quantity("output_tokens_per_s", tokens_per_s, interval_95=2.5),
            "tpot_s_p50": quantity("tpot_s_p50", 0.0123),
            "ttft_s_p50": quantity("ttft_s_p50", 0.0000456),
            "decode_s_mbu": quantity("decode_s_mbu", 0.416, source="derived", note="against the measured peak"),
            "power_w": quantity("power_w", None),
            "usd_per_million_output_tokens_owner": quantity(
                "usd_per_million_output_tokens_owner", 0.52, source="estimated"
            ),
        },
        routing_source=RoutingSource.REPLAY,
        activated_by_layer=(3.5, 3.0, 2.5),
        expert_tokens=tuple(tuple((layer + 1) * expert for expert in range(EXPERTS)) for layer in range(LAYERS)),
        activated_by_batch_size={1: 2.0, 2: 3.4, 4: 5.1},
        invalid=invalid,
        requests=(RawRequest(sent_s=0.0, token_s=(0.1, 0.2), ended_s=0.2, input_tokens=32, output_tokens=2),),
    )


def make_result(
    name: str = "demo-moe", *, points: tuple[Point, ...] | None = None, precision: str = "bf16", note: str = "a note"
) -> Result:
    """A measured result; the id follows from its name and precision."""
    asked = Submission(model="./assets/cap-tiny-moe", precision=precision, concurrency=(1, 4))
    return Result(
        schema_version=1,
        metrics_version=METRICS_VERSION,
        id=result_id(name, precision),
        kind="measured",
        created_at=datetime(2026, 11, 22, tzinfo=UTC),
        submission=asked,
        run_uuid="00000000-0000-0000-0000-000000000001",
        citation=None,
        model=ModelRecord(
            name=name, revision="abc", model_type="qwen3_moe", parameters_total=5_200_000, parameters_active=2_100_000
        ),
        engine=EngineRecord(
            name="transformers", version="5.23.0", arguments={"cache": "static"}, weights_dtype="bf16",
            kv_dtype="bf16", compute_dtype="bf16",
        ),
        precision=precision,
        hardware=HardwareRecord(device="cpu-probed", device_name="Some CPU", num_devices=1),
        points=points or (make_point(1, 210.0), make_point(4, 640.0)),
        accuracy=(
            AccuracyRecord(task="cap_arithmetic", metric="exact_match", value=0.93, stderr=0.01, num_samples=300),
        ),
        environment={"python": "3.11", "packages": {"torch": "2.13.0"}},
        reproduce="moe-cap evaluate request.json --seed 0",
        assumptions={"usd_per_kwh": 0.15},
        warnings=(note,),
    )  # fmt: skip
