"""The cells of a profile: every combination of what was listed, each with a fingerprint that makes it found again.

A cell is one system under one pair of lengths. Its loads (concurrency, or rates of arrivals) are the points of its
result: they share one start of the engine.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from moe_cap.errors import ProfileError
from moe_cap.measure.load.schedule import Lengths
from moe_cap.measure.profile.config import ProfileConfig
from moe_cap.measure.profile.system import Place
from moe_cap.measure.publishable import is_secret, publishable_command
from moe_cap.result import METRICS_VERSION, SCHEMA_VERSION
from moe_cap.submission import Arrivals, Submission, parse_submission

PLACEHOLDER = re.compile(r"\{(\w+)\}")
OURS = frozenset({"--host", "--port", "-m", "--model", "--model-path", "--served-model-name", "--alias"})
"""Arguments that say where the server is and what it serves: the profile says that itself."""
LONGEST = {"input_tokens": 16_384, "output_tokens": 4_096}
"""Of a dataset's own requests."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a profile.

    Attributes:
        arguments: the engine's, with the values of `swept` in their places.
        swept: what tells this cell from the others, by name, for tables and plots.
        fingerprint: hash of everything that decides the result; 12 hex digits.
    """

    submission: Submission
    arguments: tuple[str, ...]
    swept: Mapping[str, str]
    prompts_from: str | None
    fingerprint: str

    @property
    def name(self) -> str:
        """The cell's folder: readable, and no two alike."""
        shape = self.submission.shape.replace(", ", "-").replace(" ", "")
        return f"{self.submission.precision}-{shape}-{self.fingerprint}"


def expand(config: ProfileConfig, place: Place, precision: str, revision: str) -> tuple[Cell, ...]:
    """Every cell of the grid, in the order of the lists; equal ones once.

    Args:
        config: what was asked.
        place: where the engine is.
        precision: of the model's own configuration, where `config` names none.
        revision: of the model, part of every fingerprint.

    Raises:
        ProfileError: arguments that cannot be given.
        SubmissionError: a value that no submission takes.
    """
    _check_sweep(config)
    cells: dict[str, Cell] = {}
    arrivals = config.open_loop
    for name, lengths, swept in product(config.precision or (precision,), config.lengths, _combinations(config.sweep)):
        submission = _submission(config, place, name, lengths, arrivals)
        arguments = fill(config.engine_args, swept)
        _check_arguments(arguments)
        fingerprint = _fingerprint(submission, arguments, config, place, revision)
        cells[fingerprint] = Cell(submission, arguments, swept, config.prompts_from, fingerprint)
    return tuple(cells.values())


def _submission(
    config: ProfileConfig, place: Place, precision: str, lengths: Lengths | None, arrivals: Arrivals | None
) -> Submission:
    asked: dict[str, object] = {
        "model": config.model_id,
        "revision": config.revision,
        "engine": place.engine,
        "precision": precision,
        "tasks": config.tasks,
        "concurrency": config.concurrency or (1,),
        "repeats": config.repeats,
        "seed": config.seed,
        "hardware": config.hardware,
        "num_requests": config.num_requests,
        "accuracy_limit": config.accuracy_limit,
        "arrivals": arrivals,
        "objectives": config.objectives,
    }
    samples = "accuracy_limit" if config.tasks else "num_requests"
    if asked[samples] is None:
        asked[samples] = config.num_samples
    if arrivals is not None and arrivals.times_s:
        asked["num_requests"] = None
    if lengths is not None:
        asked |= {"input_tokens": lengths.input_tokens, "output_tokens": lengths.output_tokens}
    elif config.prompts_from is not None:
        asked |= {"lengths": "dataset", **LONGEST}
    return parse_submission(asked)


def _combinations(sweep: Mapping[str, Sequence[str]]) -> Iterator[dict[str, str]]:
    for values in product(*sweep.values()):
        yield dict(zip(sweep, values, strict=True))


def _check_arguments(arguments: Sequence[str]) -> None:
    for argument in arguments:
        if is_secret(argument):
            raise ProfileError(
                "an API key is no argument: arguments are part of the published record", key="engine_args"
            )
        if argument.partition("=")[0] in OURS:
            raise ProfileError(f"{argument} is set by the profile itself; leave it out", key="engine_args")


def _check_sweep(config: ProfileConfig) -> None:
    named = {name for argument in config.engine_args for name in PLACEHOLDER.findall(argument)}
    if unused := [name for name in config.sweep if name not in named]:
        raise ProfileError(f"no engine argument holds {{{unused[0]}}}, so sweeping it changes nothing", key="sweep")
    if empty := [name for name, values in config.sweep.items() if not values]:
        raise ProfileError(f"{empty[0]} has no values", key="sweep")


def fill(template: Sequence[str], values: Mapping[str, str]) -> tuple[str, ...]:
    r"""Arguments with values in the places of their names.

    >>> fill(["--tp", "{tp}", "{draft}"], {"tp": "2", "draft": "--speculative-config '{\"k\": 3}'"})
    ('--tp', '2', '--speculative-config', '{"k": 3}')
    >>> fill(["{draft}"], {"draft": ""})
    ()
    """
    filled: list[str] = []
    for argument in template:
        whole = PLACEHOLDER.fullmatch(argument)
        if whole and whole[1] in values:
            filled += _words_of(whole[1], values[whole[1]])
        else:
            filled.append(PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), argument))
    return tuple(filled)


def _words_of(name: str, value: str) -> list[str]:
    try:
        return shlex.split(value)
    except ValueError as error:
        raise ProfileError(f"{name}={value}: {error}", key="sweep") from error


def _fingerprint(
    submission: Submission, arguments: tuple[str, ...], config: ProfileConfig, place: Place, revision: str
) -> str:
    decides = {
        "submission": submission.model_dump(mode="json", exclude={"submitter"}),
        "arguments": arguments,
        "place": place.identity(),
        "num_devices": config.num_devices,
        "prompts_from": config.prompts_from,
        "revision": revision,
        "versions": [SCHEMA_VERSION, METRICS_VERSION],
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:12]


def reproduce(cell: Cell, place: Place, num_devices: int | None) -> str:
    """The command that repeats a cell; an endpoint's address stays its owner's, and so does what arguments hold."""
    asked = cell.submission
    options: list[tuple[str, object]] = [("--model", asked.model), ("--revision", asked.revision), *place.options()]
    options += [("--precision", asked.precision)]
    if asked.lengths is None:
        options += [("--input-tokens", asked.input_tokens), ("--output-tokens", asked.output_tokens)]
    if asked.objectives is not None:
        options += [("--slo", f"{name}={limit:g}") for name, limit in asked.objectives if limit is not None]
    if asked.arrivals is None:
        options.append(("--concurrency", ",".join(map(str, asked.concurrency))))
    else:
        options.append(("--arrivals", asked.arrivals.process))
        options += [("--rate", rate) for rate in asked.arrivals.rates_per_s]
        options.append(("--burstiness", asked.arrivals.burstiness if asked.arrivals.process == "gamma" else None))
        options.append(("--trace", "TIMES.txt" if asked.arrivals.times_s else None))
    options += [("--task", task) for task in asked.tasks] or [("--dataset", cell.prompts_from)]
    options += [("--num-requests", asked.num_requests), ("--accuracy-limit", asked.accuracy_limit)]
    options += [("--repeats", asked.repeats), ("--seed", asked.seed)]
    options += [("--hardware", asked.hardware), ("--num-devices", num_devices)]
    words = [word for name, value in options if value is not None for word in (name, str(value))]
    arguments = map(str, publishable_command(cell.arguments))
    return shlex.join(["moe-cap", "profile", *words, *(["--", *arguments] if cell.arguments else [])])
