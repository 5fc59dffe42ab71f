"""Every forward pass as a SGLang with `--enable-forward-pass-metrics` tells it: what the reading of a timed run is held
against."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from moe_cap.measure.engines.base import EngineStep, LaunchSpec, Request
from moe_cap.measure.engines.launched import ServerSession
from moe_cap.measure.engines.server import HOME, SCRATCH

ENDPOINT = f"ipc://{SCRATCH}/passes"
TELL = Path(__file__).with_name("tell_sglang_passes.py")
SETTLE_S = 1.0
"""Until a subscription has reached the publisher, and the last message the subscriber."""

Told = tuple[int, int, int, int]
"""Requests with prompts, their tokens, requests with next tokens, their contexts together."""


def telling(timed: LaunchSpec) -> LaunchSpec:
    flags = ("--enable-forward-pass-metrics", "--forward-pass-metrics-ipc-name", ENDPOINT)
    return replace(timed, argv=(*timed.argv, *flags))


@contextmanager
def told_passes(session: ServerSession, folder: Path) -> Iterator[list[dict[str, float]]]:
    """Filled when the block ends."""
    passes: list[dict[str, float]] = []
    said, server = folder / "passes.jsonl", session.server
    command = [server.fill(f"{HOME}/bin/python"), str(TELL), server.fill(f"{ENDPOINT}.0")]
    with said.open("w") as output, subprocess.Popen(command, stdout=output) as teller:
        try:
            while not said.read_text():
                assert teller.poll() is None
                time.sleep(0.1)
            time.sleep(SETTLE_S)
            yield passes
            time.sleep(SETTLE_S)
        finally:
            teller.terminate()
    passes += map(json.loads, said.read_text().splitlines()[1:])


def as_told(step: EngineStep, prompts: Mapping[str, int]) -> Told:
    """A step as SGLang would tell it; `prompts` is the length of every request's."""
    parts = [member.num_tokens for member in step.members if member.first_position < prompts[member.request_id]]
    nexts = [
        member.first_position + 1 for member in step.members if member.first_position >= prompts[member.request_id]
    ]
    return len(parts), sum(parts), len(nexts), sum(nexts)


def of_message(told: Mapping[str, float]) -> Told:
    return tuple(
        int(told[name]) for name in ("prefill_requests", "prefill_tokens", "decode_requests", "decode_context")
    )


def prompts_of(requests: Sequence[Request]) -> dict[str, int]:
    return {request.id: len(request.prompt) for request in requests}
