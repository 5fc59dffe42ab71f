"""What a profile asks for: the YAML of MoE-CAP configurations, with keys of ours beside theirs.

Every key is an option of the command too, and an option wins over the file.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from itertools import product
from math import isfinite, nan
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from moe_cap.errors import ProfileError, UnknownDatasetError
from moe_cap.measure.load.schedule import PRESETS, Lengths
from moe_cap.offerings import TASKS
from moe_cap.submission import Arrivals, Objectives

DATASETS: dict[str, str | None] = {**{name: name for name in TASKS}, "longbench_v2": None, "arena-hard": None}
"""Data that configurations name, and the accuracy task of the same problems; None where there is none here."""
Metric = Literal["em", "exact_match", "acc", "accuracy", "f1"]
"""Naming any of them asks for a task's score, which is the metric that the task is registered with."""
EXPECTED_TRACE = "give one arrival time a line, in seconds, such as 0.25"


def _listed(value: object) -> object:
    """One value is a list of one."""
    if value is None:
        return ()
    return value if isinstance(value, list | tuple) else (value,)


def _words(value: object) -> object:
    return shlex.split(value) if isinstance(value, str) else _listed(value)


Texts = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Counts = Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_listed)]
Rates = Annotated[tuple[float, ...], BeforeValidator(_listed)]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]


class ProfileConfig(BaseModel):
    """One profile; a list where one value would do makes a grid.

    Attributes:
        model_id: Hub id, or a folder.
        dataset_names: data whose problems the prompts are made of, and which are scored where `metrics` asks for it.
        metrics: anything here asks for the score of every dataset.
        precision: number format of the weights; the model's own configuration says it where this does not.
        fixed_length_mode: lengths are given; nothing is scored.
        target_input_tokens, target_output_tokens: lengths of every request, in tokens; each with each.
        num_samples: requests of a load in fixed-length mode, else problems that are scored.
        presets: pairs of lengths, `4k-1k`, beside the lengths above. Without any length the first dataset's own are
            taken, as MoE-CAP does.
        objectives: what goodput counts: `{ttft_s: 0.5, tpot_s: 0.05}`.
        engine_args: the engine's own arguments; `{name}` stands for a value of `sweep`.
        sweep: values by name. A value that is an argument of its own may be several words, or none.
        rates_per_s: open loop, requests per second; needs `arrivals`.
        trace: file of arrival times, seconds, one a line; for `arrivals: trace`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    model_id: str | None = None
    dataset_names: Texts = ()
    metrics: Annotated[tuple[Metric, ...], BeforeValidator(_listed)] = ()
    precision: Texts = ()
    fixed_length_mode: bool = False
    target_input_tokens: Counts = ()
    target_output_tokens: Counts = ()
    num_samples: int | None = Field(default=None, ge=1)
    revision: str | None = None
    engine: str | None = None
    engine_args: Words = ()
    sweep: dict[str, Texts] = {}
    presets: Texts = ()
    concurrency: Counts = ()
    objectives: Objectives | None = None
    arrivals: Literal["constant", "poisson", "gamma", "trace"] | None = None
    rates_per_s: Rates = ()
    burstiness: float = 1.0
    trace: Path | None = None
    num_requests: int | None = Field(default=None, ge=1)
    accuracy_limit: int | None = Field(default=None, ge=1)
    repeats: int = Field(default=1, ge=1)
    seed: int = Field(default=0, ge=0)
    hardware: str | None = None
    num_devices: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _lengths_are_whole(self) -> ProfileConfig:
        if bool(self.target_input_tokens) != bool(self.target_output_tokens):
            raise ValueError("give target_input_tokens and target_output_tokens, or neither")
        if self.fixed_length_mode and not (self.target_input_tokens or self.presets):
            raise ValueError("fixed_length_mode needs target_input_tokens and target_output_tokens")
        if unknown := [name for name in self.presets if name.replace("-", "/") not in PRESETS]:
            raise ValueError(f"no preset {unknown[0]!r}; there are: {', '.join(PRESETS).replace('/', '-')}")
        if (self.arrivals == "trace") != (self.trace is not None):
            raise ValueError("a trace needs `arrivals: trace` and the file")
        if self.arrivals and self.concurrency:
            raise ValueError("a load is a closed loop of some concurrency or an open loop of arrivals, not both")
        return self

    @property
    def lengths(self) -> tuple[Lengths | None, ...]:
        """Every pair of lengths; (None,) where none is given."""
        named = [PRESETS[name.replace("-", "/")] for name in self.presets]
        crossed = [Lengths(*pair) for pair in product(self.target_input_tokens, self.target_output_tokens)]
        return (*named, *crossed) or (None,)

    @property
    def tasks(self) -> tuple[str, ...]:
        """What is scored.

        Raises:
            UnknownDatasetError: a dataset that is to be scored has no task here.
        """
        if not self.metrics or self.fixed_length_mode:
            return ()
        tasks = [DATASETS[name] for name in self.dataset_names]
        if None in tasks:
            name = self.dataset_names[tasks.index(None)]
            have = ", ".join(TASKS)
            raise UnknownDatasetError(f"{name} has no accuracy task here; these have: {have}", key="metrics")
        return tuple(task for task in tasks if task is not None)

    @property
    def prompts_from(self) -> str | None:
        """The task whose problems the prompts are made of; None where there is none."""
        return next((DATASETS[name] for name in self.dataset_names if DATASETS[name]), None)

    @property
    def open_loop(self) -> Arrivals | None:
        """The arrivals, with the times of a trace read from its file.

        Raises:
            ProfileError: they do not hold together, or the file cannot be used.
        """
        if self.arrivals is None:
            if self.rates_per_s:
                raise ProfileError("a rate needs arrivals: constant, poisson or gamma", key="arrivals")
            return None
        times_s = read_trace(self.trace) if self.trace else ()
        try:
            return Arrivals(
                process=self.arrivals, rates_per_s=self.rates_per_s, burstiness=self.burstiness, times_s=times_s
            )
        except ValidationError as error:
            raise ProfileError(error.errors()[0]["msg"].removeprefix("Value error, "), key="arrivals") from error


def read_trace(path: Path) -> tuple[float, ...]:
    """Arrival times of a recorded trace, seconds, one a line; empty lines count for nothing.

    Raises:
        ProfileError: no such file, no time in it, or a line that is no time.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ProfileError(f"cannot read the trace {path}: {error.strerror or error}", key="trace") from error
    except UnicodeDecodeError as error:
        raise ProfileError(f"the trace {path} is no text: {EXPECTED_TRACE}", key="trace") from error
    told = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    if not told:
        raise ProfileError(f"the trace {path} is empty: {EXPECTED_TRACE}", key="trace")
    return tuple(_time_s(path, number, text) for number, text in told)


def _time_s(path: Path, number: int, text: str) -> float:
    try:
        time_s = float(text)
    except ValueError:
        time_s = nan
    if not isfinite(time_s):
        raise ProfileError(f"line {number} of the trace {path} is {text!r}: {EXPECTED_TRACE}", key="trace")
    return time_s


def read_config(path: Path) -> dict[str, Any]:
    """The keys of a YAML file.

    Raises:
        ProfileError: no such file, no YAML, or no mapping.
    """
    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProfileError(f"cannot read {path}: {error.strerror or error}", key="config") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: no text, or a date that no calendar has
        raise ProfileError(f"{path} is not YAML: {error}", key="config") from error
    if not isinstance(body, dict):
        raise ProfileError(f"{path} holds no keys; a profile begins with model_id: ...", key="config")
    return body


def parse_profile(body: Mapping[str, Any]) -> ProfileConfig:
    """Turn keys from outside into a profile.

    Raises:
        ProfileError: a key that no profile has (all that there are stand in the message), or a value that cannot be.
        UnknownDatasetError: data that is not known here.
    """
    known = ProfileConfig.model_fields
    if strange := [str(name) for name in body if name not in known]:
        raise ProfileError(f"no profile has the key {strange[0]!r}; there are: {', '.join(known)}", key=strange[0])
    try:
        config = ProfileConfig.model_validate(dict(body))
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0]) if first["loc"] else "profile"
        raise ProfileError(f"{key}: {first['msg'].removeprefix('Value error, ')}", key=key) from error
    for name in config.dataset_names:
        if name not in DATASETS:
            raise UnknownDatasetError(f"no dataset {name!r}; there are: {', '.join(DATASETS)}", key="dataset_names")
    return config
