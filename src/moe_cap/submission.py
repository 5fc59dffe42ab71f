"""What a user asks for: one system and the loads to measure it under."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from moe_cap.errors import SubmissionError

HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
NAME = re.compile(r"^[A-Za-z0-9][\w.:+-]*$")
LATER = frozenset({"arrivals", "lengths", "objectives"})
"""Keys that a submission got after the first ones had been stored."""


class Arrivals(BaseModel):
    """An open loop: requests come by the clock, whatever became of those before them.

    Attributes:
        process: constant distances, Poisson, gamma of shape `burstiness`, or the recorded times of a trace.
        rates_per_s: mean rates, each becomes one point of the result; none for a trace.
        burstiness: 1 is Poisson, below 1 comes in bursts, above 1 is more even; gamma only.
        times_s: arrivals of a trace; each is one request.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    process: Literal["constant", "poisson", "gamma", "trace"]
    rates_per_s: tuple[float, ...] = Field(default=(), max_length=16)
    burstiness: float = Field(default=1.0, gt=0, le=1000)
    times_s: tuple[float, ...] = Field(default=(), max_length=100_000)

    @model_validator(mode="after")
    def _rates_or_times(self) -> Arrivals:
        if self.process == "trace":
            if self.rates_per_s or not self.times_s:
                raise ValueError("a trace is given by its times and has no rate of its own")
        elif self.times_s or not self.rates_per_s or any(rate <= 0 for rate in self.rates_per_s):
            raise ValueError(f"{self.process} arrivals need rates above 0, in requests per second")
        if self.burstiness != 1.0 and self.process != "gamma":
            raise ValueError("only gamma arrivals have a burstiness")
        return self


class Objectives(BaseModel):
    """Service level objectives: what a request must keep to count as good; at least one.

    Attributes:
        ttft_s, tpot_s, e2e_s: the longest time to the first token, per further token, and for the whole answer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    ttft_s: float | None = Field(default=None, gt=0)
    tpot_s: float | None = Field(default=None, gt=0)
    e2e_s: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _something_is_asked(self) -> Objectives:
        if self.ttft_s is self.tpot_s is self.e2e_s is None:
            raise ValueError("objectives need at least one of ttft_s, tpot_s, e2e_s, in seconds")
        return self


class Submission(BaseModel):
    """Everything that was asked; two submissions that ask the same have the same `id`.

    Attributes:
        model: Hub id (`Qwen/Qwen3-30B-A3B`) or a folder (`./assets/cap-tiny-moe`, `/models/x`); see `is_folder`.
        revision: branch, tag or commit on the Hub; None for the default branch or a folder.
        engine: name in the engine registry.
        precision: number format of the weights, e.g. `bf16`, `int4`.
        tasks: accuracy tasks by registry name, the first is the one that the board shows.
        concurrency: closed-loop levels, each becomes one point of the result.
        arrivals: an open loop in place of them, for engines behind a server; no record has the key without it.
        input_tokens, output_tokens: length of every request, in tokens; the longest ones where `lengths` is given.
        lengths: `dataset` sends the first task's problems as long as they are, and asks for answers as long as their
            solutions; no record has the key without it.
        objectives: what goodput counts; no record has the key without it.
        num_requests: requests per level; None lets the evaluator take enough for a steady window.
        accuracy_limit: problems per task; None takes all of them.
        repeats: timed repetitions of each level, for the confidence interval.
        hardware: canonical device id that a worker must have; None takes any worker.
        seed: of the prompts and of whatever samples.
        submitter: who asked, free text, not part of the identity.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    schema_version: Literal[1] = 1
    model: str = Field(min_length=1, max_length=512)
    revision: str | None = Field(default=None, max_length=128)
    engine: str = "transformers"
    precision: str = "bf16"
    tasks: tuple[str, ...] = Field(default=(), max_length=16)
    concurrency: tuple[int, ...] = Field(default=(1,), min_length=1, max_length=16)
    input_tokens: int = Field(default=128, ge=1, le=1_000_000)
    output_tokens: int = Field(default=64, ge=2, le=1_000_000)
    num_requests: int | None = Field(default=None, ge=1, le=100_000)
    accuracy_limit: int | None = Field(default=None, ge=1, le=1_000_000)
    repeats: int = Field(default=1, ge=1, le=20)
    hardware: str | None = Field(default=None, max_length=128)
    seed: int = Field(default=0, ge=0, le=2**31 - 1)
    submitter: str | None = Field(default=None, max_length=128)
    arrivals: Arrivals | None = None
    lengths: Literal["dataset"] | None = None
    objectives: Objectives | None = None

    @model_serializer(mode="wrap")
    def _older_ids_stay_as_they_were(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Ids and records of what does not ask for them know nothing of the keys that came later."""
        body: dict[str, Any] = handler(self)
        return {name: value for name, value in body.items() if name not in LATER or value is not None}

    @field_validator("model")
    @classmethod
    def _model_is_a_hub_id_or_a_folder(cls, value: str) -> str:
        if HUB_ID.match(value) or value.startswith(("/", "./", "../", "~")):
            return value
        raise ValueError("give a Hub id like 'Qwen/Qwen3-30B-A3B', or a folder that starts with './' or '/'")

    @field_validator("revision")
    @classmethod
    def _revision_is_one_word(cls, value: str | None) -> str | None:
        if value is None or value == "":
            return None
        if not re.match(r"^[\w][\w./-]*$", value) or ".." in value:
            raise ValueError("a revision is a branch, a tag or a commit hash")
        return value

    @field_validator("engine", "precision")
    @classmethod
    def _one_name(cls, value: str) -> str:
        if not NAME.match(value):
            raise ValueError("a name of letters, digits, '.', '_', '-'")
        return value

    @field_validator("tasks")
    @classmethod
    def _task_names_once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not NAME.match(name):
                raise ValueError(f"{name!r} is not a task name")
        return tuple(dict.fromkeys(value))

    @field_validator("concurrency")
    @classmethod
    def _levels_are_positive_and_sorted(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(level < 1 or level > 4096 for level in value):
            raise ValueError("every level is between 1 and 4096")
        return tuple(sorted(set(value)))

    @property
    def shape(self) -> str:
        """Lengths of its requests, for people."""
        if self.lengths == "dataset":
            return "own lengths"
        return f"{self.input_tokens} in, {self.output_tokens} out"

    @property
    def is_folder(self) -> bool:
        """Whether `model` names a folder of the worker's machine."""
        return not HUB_ID.match(self.model)

    @property
    def folder(self) -> Path:
        """The model's folder; only for `is_folder`."""
        return Path(self.model).expanduser()

    @property
    def id(self) -> str:
        """Hex hash of everything that was asked, 16 digits; who asked is not part of it."""
        asked = self.model_dump(mode="json", exclude={"submitter"})
        return hashlib.sha256(json.dumps(asked, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def parse_submission(body: object) -> Submission:
    """Turn a mapping or JSON text from outside into a Submission.

    Raises:
        SubmissionError: carries the name of the first field that is wrong and says what was expected.
    """
    try:
        if isinstance(body, str | bytes):
            return Submission.model_validate_json(body)
        return Submission.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else "submission"
        message = first["msg"].removeprefix("Value error, ")
        raise SubmissionError(f"{field}: {message}", field=field) from error
