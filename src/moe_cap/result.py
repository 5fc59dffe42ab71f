"""The published record: complete enough that every number can be recomputed and the run repeated.

A result is immutable. One result holds one system; every load it was measured under is one `Point`, and one row of
the board.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator, model_validator

from moe_cap.errors import ResultError
from moe_cap.quantity import QUANTITIES, Quantity
from moe_cap.routing import RoutingSource, StepKind
from moe_cap.submission import Submission

SCHEMA_VERSION = 1
METRICS_VERSION = 4

Text = Annotated[str, Field(min_length=1)]


class Record(BaseModel):
    """Base of all parts of a result: unknown fields are refused, nothing changes after it is made."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Citation(Record):
    """Where a reported number stands."""

    text: Text
    url: Text
    place: Text
    """Table, figure or page of the source."""

    @field_validator("url")
    @classmethod
    def _is_a_web_page(cls, value: str) -> str:
        if urlsplit(value).scheme not in {"http", "https"} or not urlsplit(value).hostname:
            raise ValueError("a citation's address begins with https:// or http://")
        return value


class ModelRecord(Record):
    """Which weights were measured."""

    name: Text
    """Hub id, or the folder's own name."""
    revision: str | None
    """Hub commit, or sha256 over the folder's weight files and config."""
    revision_reason: str | None = None
    """Why there is no revision (reported results)."""
    model_type: str | None
    parameters_total: int | None
    parameters_active: int | None
    parameters_by_part: dict[str, int] = {}
    weights_bytes: float | None = None
    """Bytes of all weights as stored for this run."""
    random_weights: bool = False
    """Performance only: the weights carry no knowledge."""


class EngineRecord(Record):
    """Which engine ran, exactly as it described itself."""

    name: str | None
    name_reason: str | None = None
    """Why the engine is not named (the source does not say)."""
    version: str | None
    arguments: dict[str, JsonValue] = {}
    """Effective arguments as read back from the engine."""
    weights_dtype: str | None
    kv_dtype: str | None
    compute_dtype: str | None
    quantisation: str | None = None
    """Method and library, e.g. `torchao int4 weight-only, group 128`."""
    tensor_parallel: int = 1
    expert_parallel: int = 1
    data_parallel: int = 1
    pipeline_parallel: int = 1


class HardwareRecord(Record):
    """What it ran on."""

    device: Text
    """Canonical id of the catalogue, or `cpu-probed` for a machine that only its probe describes."""
    device_name: Text
    """As the vendor's library or the operating system says it."""
    num_devices: int = Field(ge=1)
    memory_bytes: float | None = None
    host_cpu: str | None = None
    host_cores: int | None = None
    host_memory_bytes: float | None = None
    driver: str | None = None
    datasheet_peak_bytes_per_s: float | None = None
    datasheet_peak_flops_per_s: float | None = None
    measured_peak_bytes_per_s: float | None = None
    measured_peak_flops_per_s: float | None = None
    peak_dtype: str | None = None
    """Compute dtype that the FLOP peaks belong to."""
    probe: dict[str, JsonValue] = {}
    """The whole probe of this machine, as measured."""


class Load(Record):
    """What the engine was asked to carry."""

    kind: Literal["closed_loop", "open_loop", "offline", "dataset"]
    concurrency: int | None = None
    request_rate_per_s: float | None = None
    batch_size: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    num_requests: int | None = None
    dataset: str | None = None
    """Name of the data whose prompts were sent; None for generated prompts of fixed length."""
    prompts: str | None = None
    """What the prompts were, for people."""


class RawRequest(Record):
    """One request's events on the client's monotonic clock, seconds since the start of the point.

    Attributes:
        cached_tokens: of the prompt, which the server says it did not compute; None where it does not tell, and left
            out then, so that records from before it keep their bytes.
    """

    sent_s: float
    token_s: tuple[float, ...]
    """Arrival of each output token; of each piece, where the server did not tell how many tokens it held."""
    ended_s: float
    input_tokens: int
    output_tokens: int
    intended_s: float | None = None
    error: str | None = None
    repeat: int = 0
    cached_tokens: int | None = Field(default=None, exclude_if=lambda value: value is None)


class RawStep(Record):
    """One forward pass as recorded, or a run of `count` passes that differ only in what is averaged here."""

    kind: StepKind
    step_s: float | None
    new_tokens: tuple[int, ...]
    context_tokens: tuple[int, ...]
    activated_experts: tuple[float, ...] | None
    logit_rows: int
    repeat: int = 0


class Point(Record):
    """One load and what was measured under it: one row of the board."""

    load: Load
    quantities: dict[str, Quantity]
    routing_source: RoutingSource | None
    accuracy_task: str | None = None
    """The task whose accuracy belongs to this very load; None takes the result's first task."""
    activated_by_layer: tuple[float, ...] | None = None
    """Mean distinct experts per decode step, one value per MoE layer."""
    expert_tokens: tuple[tuple[int, ...], ...] | None = None
    """Tokens that each expert of each MoE layer received [layers][experts]."""
    activated_by_batch_size: dict[int, float] | None = None
    """Mean distinct experts per layer when this many of the traced sequences are decoded together."""
    invalid: tuple[str, ...] = ()
    """Validity rules that this point broke; such a point is shown as invalid and never ranked."""
    requests: tuple[RawRequest, ...] = ()
    steps: tuple[RawStep, ...] = ()

    @field_validator("quantities")
    @classmethod
    def _known_names_and_units(cls, value: dict[str, Quantity]) -> dict[str, Quantity]:
        for name, quantity in value.items():
            spec = QUANTITIES.get(name)
            if spec is None:
                raise ValueError(f"{name} is not a quantity that a result may hold")
            if quantity.unit != spec.unit:
                raise ValueError(f"{name} is in {spec.unit}, not in {quantity.unit}")
        return value


class AccuracyRecord(Record):
    """One task's score through the same engine and settings."""

    task: Text
    metric: Text
    value: float = Field(ge=0, le=1)
    stderr: float | None = None
    num_samples: int | None = None
    num_fewshot: int | None = None
    no_answer_rate: float | None = None
    """Share of answers from which nothing could be extracted; beside every generated-answer score."""
    task_version: str | None = None
    dataset_revision: str | None = None
    """Hash of the problems, or the Hub commit."""
    prompt_sha256: str | None = None
    """Hash over the rendered prompts in order."""
    harness: str | None = None
    """Library and version that scored."""
    filter: str | None = None
    samples_sha256: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """Of `samples-<task>.jsonl`, which the run wrote beside its record: every answer and its score. Left out where
    there is none, so that records from before it keep their bytes."""


class Result(Record):
    """The record that is published, once."""

    schema_version: Literal[1]
    metrics_version: int
    id: str = Field(pattern=r"^[0-9a-f]{24}$")
    kind: Literal["measured", "reported"]
    created_at: datetime
    submission: Submission | None
    run_uuid: str | None
    citation: Citation | None
    model: ModelRecord
    engine: EngineRecord
    precision: Text
    hardware: HardwareRecord
    points: tuple[Point, ...] = Field(min_length=1)
    accuracy: tuple[AccuracyRecord, ...]
    environment: dict[str, JsonValue]
    """Python, packages, operating system, code commit; empty for reported results."""
    reproduce: str | None
    """The command that repeats this run."""
    assumptions: dict[str, JsonValue] = {}
    """Prices, electricity, amortisation: everything that the cost figures rest on, each with its source."""
    warnings: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _kind_has_its_evidence(self) -> Result:
        if self.kind == "reported" and self.citation is None:
            raise ValueError("a reported result needs its citation")
        if self.kind == "measured" and (self.submission is None or self.run_uuid is None or self.reproduce is None):
            raise ValueError("a measured result needs its submission, its run and the command that repeats it")
        if self.kind == "reported" and any(
            quantity.source == "measured" for point in self.points for quantity in point.quantities.values()
        ):
            raise ValueError("a reported result holds no number of ours")
        if self.engine.name is None and self.engine.name_reason is None:
            raise ValueError("an engine without a name needs the reason")
        if self.created_at.tzinfo is None:
            raise ValueError("created_at needs its time zone")
        return self

    def to_json(self) -> bytes:
        """Canonical bytes: sorted keys, so that publishing the same result twice is the same blob."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, indent=1).encode()


def result_id(asked: str, run_uuid: str) -> str:
    """Hash of what was asked (a submission's id, or a citation's text) and of the run, 24 hex digits."""
    return hashlib.sha256(f"{asked}\n{run_uuid}".encode()).hexdigest()[:24]


def parse_result(data: bytes | str) -> Result:
    """Read a published record.

    Raises:
        ResultError: names the field that does not hold and what was expected.
    """
    try:
        return Result.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ResultError(f"result record, {place or 'whole'}: {first['msg'].removeprefix('Value error, ')}") from error
