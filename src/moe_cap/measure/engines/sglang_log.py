"""What a stock SGLang says that tells its forward passes: the log's list of passes with prompts, and its settings."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import JsonValue

from moe_cap.measure.engines.turns import PromptPass

PREFILL = re.compile(r"Prefill batch(?: \[\d+\])?, #new-seq: (?P<requests>\d+), #new-token: (?P<tokens>\d+),")
IN_TURN: Mapping[str, JsonValue] = {
    "enable_mixed_chunk": False, "speculative_algorithm": None, "stream_interval": 1, "disaggregation_mode": "null",
    "dp_size": 1, "pp_size": 1,
}  # fmt: skip
"""Settings, all of them its defaults, under which one scheduler runs prompts in passes of their own, one pass gives one
token, and every token is sent at once."""


def parse_prompt_passes(said: str) -> tuple[PromptPass, ...]:
    """The passes with prompts, in order.

    Source: sglang/srt/managers/scheduler_components/metrics_reporter.py, `report_prefill_stats` (0.5.23); one line for
    every such pass, whatever the interval at which passes without prompts are logged.
    """
    return tuple(PromptPass(int(found["requests"]), int(found["tokens"])) for found in PREFILL.finditer(said))


def takes_turns(settings: Mapping[str, JsonValue]) -> bool:
    """Whether the server, by its own words, runs as `moe_cap.measure.engines.turns` reads it; unset ones are untold."""
    return all(settings.get(name) == value for name, value in IN_TURN.items())
