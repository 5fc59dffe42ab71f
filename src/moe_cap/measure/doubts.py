"""What a reader of a result must know before believing it. None of it makes the result invalid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pydantic import JsonValue

from moe_cap.measure.load.validity import Rules
from moe_cap.measure.model_files import ModelFiles
from moe_cap.measure.points import LevelResult, System, wrong_bytes
from moe_cap.measure.probe import QUIET_SHARE
from moe_cap.precision import read_quantization
from moe_cap.result import EngineRecord


def doubts_of_the_run(system: System, busy: float, environment: Mapping[str, JsonValue]) -> Iterator[str]:
    """Of its bytes, its code and its machine; `busy` is the load average per processor before the run."""
    yield from wrong_bytes(system)
    if environment["code_changed"]:
        yield f"the code differs from commit {environment['code_commit']}: nobody else can run this very code"
    if busy > QUIET_SHARE:
        yield (
            f"the machine was busy before the run began (load average {busy:.1f} per processor): times are long, and "
            "where its peaks were probed then, they are low and shares of them too high"
        )


def doubts_of_the_weights(files: ModelFiles, engine: EngineRecord) -> Iterator[str]:
    """A quantised checkpoint whose engine does not tell that its kernels read it packed."""
    stored = read_quantization(files.folder, files.config)
    if stored.rules and engine.quantisation is None:
        yield (
            f"the engine does not tell that its kernels read the {stored.name} weights as they are stored: where it"
            " unpacks them, more bytes are read than are counted"
        )


def doubts_of_the_levels(files: ModelFiles, levels: Sequence[LevelResult]) -> Iterator[str]:
    """Passes that were carried again, and answers that look like a broken kernel's.

    Blank answers are a warning, and break a rule only where they are more than half of a server's load (docs/load.md):
    they are forced past the model's end of text, and what a sound model says there may be blank (a quarter of what the
    shipped one does after short problems). Random weights say nothing else: they neither warn nor refuse.
    """
    for level in levels:
        if level.refusals:
            times = f"{len(level.refusals)} timed passes of {level.load.num_requests} requests were carried again"
            yield f"{times}, the last because it was {level.refusals[-1]}"
        answers = sum(len(timed.run.completions) for timed in level.passes)
        if level.degenerate > Rules().max_degenerate_share * answers and not files.random_weights:
            yield (
                f"{level.degenerate} of {answers} timed answers at batch {level.load.batch_size} are blank or one "
                "character over and over: look at the accuracy before believing the times"
            )
