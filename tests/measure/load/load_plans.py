"""Plans that a busy test machine can carry."""

from moe_cap.measure.load import ClosedLoop, Limits, LoadPlan, OpenLoop, Prompt, Rules, Target
from moe_cap.measure.mock_script import Behaviour
from moe_cap.measure.mock_server import MockServer

QUICK = Behaviour(ttft_s=0.01, itl_s=0.001)
PATIENT = Rules(max_lag_s=10.0, max_beat_lag_s=10.0)
"""The machine that runs the tests is not a measuring machine: lateness has its own tests."""


def prompts(count: int, output_tokens: int = 4) -> list[Prompt]:
    return [Prompt(f"which number follows {index}", output_tokens, input_tokens=4) for index in range(count)]


def plan_for(server: MockServer, arrivals: ClosedLoop | OpenLoop, count: int, **changes: object) -> LoadPlan:
    told: dict[str, object] = {
        "target": Target(server.url, "mock"),
        "prompts": prompts(count),
        "arrivals": arrivals,
        "limits": Limits(connect_s=2.0, silence_s=0.5, request_s=20.0),
        "rules": PATIENT,
    }
    return LoadPlan(**(told | changes))  # type: ignore[arg-type]
