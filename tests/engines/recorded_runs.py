"""Runs of a real server as lines of JSON: what its client saw of every request, and the passes that it wrote down.

`make engines-test` looks at live runs, `make test` replays those that were recorded; both ask the same question.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moe_cap.measure.engines.base import Completion, EngineRun, EngineStep, Member, Request
from moe_cap.measure.model_files import ModelFiles

SEVERAL = (3, 8)
CONCURRENCIES = (1, *SEVERAL)

Composition = list[list[int]]
"""Of one pass: (first position, tokens) of every request in it, sorted; a server names requests in its own way."""


def make_shapes(files: ModelFiles, concurrency: int, *, equal: bool) -> list[Request]:
    """Requests of a closed loop, of one length or of many."""
    last = files.config["vocab_size"] - 3
    lengths = [(24, 20) if equal else (10 + 13 * i % 50, 8 + 7 * i % 25) for i in range(2 * concurrency + 2)]
    return [
        Request(f"r{i}", tuple((17 * i + 5 * j) % last + 3 for j in range(prompt)), output)
        for i, (prompt, output) in enumerate(lengths)
    ]


def name_of(concurrency: int, *, equal: bool) -> str:
    return f"concurrency {concurrency}, {'equal' if equal else 'unequal'}"


def composition(members: Sequence[Member]) -> Composition:
    return sorted([member.first_position, member.num_tokens] for member in members)


def compositions(steps: Sequence[EngineStep]) -> list[Composition]:
    return [composition(step.members) for step in steps]


def whole(passes: Sequence[Composition], requests: Sequence[Request]) -> bool:
    """Whether the passes computed every position but that of the last token, and nothing else."""
    wanted = sum(len(request.prompt) + request.output_tokens - 1 for request in requests)
    return sum(tokens for one in passes for _, tokens in one) == wanted


def as_record(requests: Sequence[Request], run: EngineRun) -> dict[str, Any]:
    """What the client saw, in seconds since the run began."""
    return {
        "requests": [[len(request.prompt), request.output_tokens] for request in requests],
        "sent_s": [round(done.sent_s - run.started_s, 6) for done in run.completions],
        "token_s": [[round(at_s - run.started_s, 6) for at_s in done.token_s] for done in run.completions],
    }


def read_runs(fixture: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in fixture.read_text(encoding="utf-8").splitlines()]


def requests_of(run: dict[str, Any]) -> list[Request]:
    return [Request(f"r{i}", (1,) * prompt, output) for i, (prompt, output) in enumerate(run["requests"])]


def completions_of(run: dict[str, Any]) -> list[Completion]:
    return [
        Completion(request.id, (1,) * request.output_tokens, sent_s, tuple(token_s), token_s[-1])
        for request, sent_s, token_s in zip(requests_of(run), run["sent_s"], run["token_s"], strict=True)
    ]
