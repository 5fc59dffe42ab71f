"""Cell after cell through the pipeline of every result, each kept as soon as it is whole."""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from moe_cap.errors import MoECapError, ResultError
from moe_cap.measure.evaluate import Job, Subject, measure
from moe_cap.measure.job import log_to, replace_file, write_failure
from moe_cap.measure.levels import open_loops
from moe_cap.measure.memory import memory_errors
from moe_cap.measure.model_files import ModelFiles, find_description
from moe_cap.measure.profile.config import DATASETS, ProfileConfig
from moe_cap.measure.profile.grid import Cell, expand, reproduce
from moe_cap.measure.profile.system import Place, refuse_dense
from moe_cap.measure.progress import Progress, Tell
from moe_cap.precision import read_quantization
from moe_cap.result import Result, parse_result
from moe_cap.settings import Settings
from moe_cap.submission import Submission, parse_submission

log = logging.getLogger("moe_cap")

RESULT, CELL = "result.json", "cell.json"
RATE_TOLERANCE = 0.1
"""Of a drawn schedule's mean rate, before the result says that it is another one than was asked for."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a cell: its result, now or from an earlier run, or the error."""

    cell: Cell
    folder: Path
    state: Literal["measured", "kept", "failed"]
    result: Result | None
    error: MoECapError | None


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile that is ready to run.

    Attributes:
        output: every cell has a folder in it.
    """

    config: ProfileConfig
    place: Place
    files: ModelFiles
    cells: tuple[Cell, ...]
    output: Path
    settings: Settings
    environ: Mapping[str, str]

    def kept(self) -> dict[str, Outcome]:
        """What earlier runs left whole, by the cell's fingerprint."""
        found = ((cell.fingerprint, self._kept(cell)) for cell in self.cells)
        return {fingerprint: outcome for fingerprint, outcome in found if outcome is not None}

    def run(
        self,
        kept: Mapping[str, Outcome],
        watch: Callable[[int, Cell], Tell],
        done: Callable[[Outcome], None],
    ) -> list[Outcome]:
        """Measure what is not kept. A cell that fails does not keep the others from being measured.

        Args:
            kept: as `kept` gives it.
            watch: gets a cell and its number before it is measured, gives the listener of its stages.
            done: told every outcome, in the order of the cells.
        """
        outcomes = []
        for number, cell in enumerate(self.cells):
            outcome = kept.get(cell.fingerprint) or self._measure(cell, watch(number, cell))
            done(outcome)
            outcomes.append(outcome)
        return outcomes

    def _kept(self, cell: Cell) -> Outcome | None:
        """The result of an earlier run, unless the server is another one by now."""
        folder = self.output / cell.name
        result = whole_result(folder)
        if result is None or not self.place.may_have_given(result.engine):
            return None
        return Outcome(cell, folder, "kept", result, None)

    def _measure(self, cell: Cell, tell: Tell) -> Outcome:
        folder = self.output / cell.name
        put_aside(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "failure.json").unlink(missing_ok=True)
        log_to(folder / "evaluate.log")
        described = {"fingerprint": cell.fingerprint, "swept": cell.swept, "arguments": cell.arguments}
        replace_file(folder / CELL, json.dumps(described, indent=1).encode())
        try:
            with memory_errors("the profile"):
                result = measure(self._job(cell, folder, tell), lambda job: self._subject(job, cell))
        except MoECapError as error:
            log.info("%s: %s", type(error).__name__, error)
            write_failure(folder, error)
            return Outcome(cell, folder, "failed", None, error)
        replace_file(folder / RESULT, result.to_json())
        return Outcome(cell, folder, "measured", result, None)

    def _job(self, cell: Cell, folder: Path, tell: Tell) -> Job:
        return Job(
            submission=cell.submission,
            run_uuid=uuid.uuid4().hex,
            output=folder,
            settings=self.settings,
            environ=self.environ,
            now=datetime.now(UTC),
            progress=Progress(folder / "progress.json", time.monotonic, tell),
            reproduce=reproduce(cell, self.place, self.config.num_devices),
            prompts_from=cell.prompts_from,
            warnings=(*prompt_warnings(self.config), *arrival_warnings(cell.submission)),
        )

    def _subject(self, job: Job, cell: Cell) -> Subject:
        return self.place.find(job, self.files, cell.arguments, self.config.num_devices)


def whole_result(folder: Path) -> Result | None:
    """What a folder has; a file that was not written whole is none."""
    try:
        return parse_result((folder / RESULT).read_bytes())
    except (OSError, ResultError):
        return None


def put_aside(folder: Path) -> None:
    """Another server's result stays, in a folder that bears its id."""
    result = whole_result(folder)
    if result is not None:
        folder.rename(folder.with_name(f"{folder.name}-{result.id}"))


def prepare(
    config: ProfileConfig, place: Place, output: Path, settings: Settings, environ: Mapping[str, str]
) -> Profile:
    """Look at the model and lay out the grid; nothing is measured yet.

    Raises:
        InvalidInputError: no such model, a dense one, a family that is not known, arguments that cannot be given.
        EngineStartError: the Hub cannot be reached.
    """
    precision = config.precision[:1] or ("bf16",)
    named = {"model": config.model_id, "revision": config.revision, "engine": place.engine}
    asked = parse_submission({**named, "precision": precision[0]})
    refuse_dense(find_description(asked, settings.model_token))  # before any weights are fetched
    files = place.find_files(asked, settings.model_token)
    cells = expand(config, place, read_quantization(files.folder, files.config).name, files.revision)
    output.mkdir(parents=True, exist_ok=True)
    return Profile(config, place, files, cells, output, settings, environ)


def prompt_warnings(config: ProfileConfig) -> tuple[str, ...]:
    """Data whose problems are not here; its prompts are other text then, and the result says so."""
    return tuple(
        f"{name} is not among the data of this code: the prompts were made of other text (see the load)"
        for name in config.dataset_names
        if DATASETS[name] is None
    )


def arrival_warnings(asked: Submission) -> tuple[str, ...]:
    """Schedules whose mean rate came out far from the one that was asked for: few draws are no distribution."""
    arrivals = asked.arrivals
    if arrivals is None or not arrivals.rates_per_s:
        return ()
    drawn = zip(arrivals.rates_per_s, open_loops(arrivals, asked), strict=True)
    return tuple(
        f"{arrivals.process} arrivals at {rate:g} requests/s were asked for, the {len(loop.arrivals_s)} that were drawn"
        f" come at {loop.rate_per_s:.3g} ({loop.rate_per_s / rate - 1:+.0%}): more requests come nearer"
        for rate, loop in drawn
        if loop.rate_per_s is not None and abs(loop.rate_per_s / rate - 1) > RATE_TOLERANCE
    )
