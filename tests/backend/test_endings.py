"""From how a process ended to what a person reads."""

from __future__ import annotations

import pytest

from backend.executors.endings import explain, parse_failure
from moe_cap.measure.guarded import Ending


@pytest.mark.parametrize(
    ("ending", "failure", "words", "retry"),
    [
        (Ending(-9, oom_kills=1, max_rss_bytes=12_300_000_000), "", "out of memory: the kernel stopped", False),
        (Ending(-9, oom_kills=0, max_rss_bytes=12_300_000_000), "", "held 12.3 GB", True),
        (Ending(-9, oom_kills=1), '{"error": "EngineStartError", "message": "no port"}', "no port", True),
        (Ending(1), '{"error": "ConfigError", "message": "no key"}', "no key", False),
        (Ending(1), '{"error": "MemoryError", "message": "enough"}', "enough", False),
        (Ending(1), '{"error": "NotOurs", "message": "odd"}', "odd", True),
        (Ending(1), '{"error": "ConfigErr', "exit code 1; its last words: last line", True),
        (Ending(2), "", "exit code 2", False),
        (Ending(0), "", "ended without a result", True),
        (Ending(-40), "", "signal 40", True),
        (Ending(None), "", "guard was killed", True),
    ],
)
def test_reason_is_taken_from_the_best_evidence(ending: Ending, failure: str, words: str, retry: bool) -> None:
    told = explain(ending, parse_failure(failure), "last line")
    assert words in told.reason
    assert told.retry is retry
