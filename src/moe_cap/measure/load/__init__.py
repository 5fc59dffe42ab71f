"""The one load client for every OpenAI-compatible server (docs/load.md).

`run_load(LoadPlan(...))` warms up, sends, reads and judges; what it gives is raw events. The rooms: `schedule` (when),
`request` (what), `loop`, `connection`, `client` (how), `stream` and `events` (what came back), `drive` and `workers`
(who sends), `validity` (what is believed).
"""

from moe_cap.measure.load.client import Limits
from moe_cap.measure.load.events import Failure, FailureKind, RequestEvents, TokenCounting, Usage
from moe_cap.measure.load.request import Api, Message, Prompt, Target
from moe_cap.measure.load.run import LoadPlan, LoadRun, run_load
from moe_cap.measure.load.schedule import PRESETS, ClosedLoop, Lengths, OpenLoop, constant, gamma, poisson, replay
from moe_cap.measure.load.validity import Rules

__all__ = [
    "PRESETS", "Api", "ClosedLoop", "Failure", "FailureKind", "Lengths", "Limits", "LoadPlan", "LoadRun", "Message",
    "OpenLoop", "Prompt", "RequestEvents", "Rules", "Target", "TokenCounting", "Usage", "constant", "gamma",
    "poisson", "replay", "run_load",
]  # fmt: skip
