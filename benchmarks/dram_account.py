"""What the accounting says that a recorded pass reads, set against what the counters saw. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.dram_counters import PassCounters
from moe_cap.architecture import Architecture
from moe_cap.errors import TraceError
from moe_cap.measure.engines.vllm_padding import expert_padding
from moe_cap.measure.engines.vllm_routing import TracedPass, parse_trace
from moe_cap.metrics.bytes_and_flops import step_bytes
from moe_cap.precision import StoragePlan
from moe_cap.routing import Step, StepKind, activated_experts, check_routing

LIMIT, TARGET = 0.01, 0.005
"""How far predicted bytes may be from the counters, and how near they are meant to be."""

Ids = NDArray[np.integer]
Kind = Literal["decode", "prefill"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One pass to look at; `tokens` is the length of each prompt, all of which a prefill computes."""

    kind: Kind
    batch: int
    tokens: int

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.kind}-{self.batch}"


@dataclass(frozen=True, slots=True)
class Member:
    """One sequence of a pass: the tokens that it computes, by position."""

    request: str
    first_position: int
    new_tokens: int


@dataclass(frozen=True, slots=True)
class Row:
    """One pass, compared; bytes read. `padding` is in `predicted`; counters are None where none were read."""

    shape: str
    kind: Kind
    batch: int
    new_tokens: int
    distinct_experts: float
    predicted: float
    padding: float
    other_written: float | None
    counted: float | None
    kernels: int | None

    @property
    def error(self) -> float | None:
        """Predicted over counted, less one."""
        return None if self.counted is None else self.predicted / self.counted - 1

    @property
    def verdict(self) -> str:
        """Against both limits."""
        if self.error is None:
            return "not counted"
        if abs(self.error) > LIMIT:
            return "outside"
        return "on target" if abs(self.error) <= TARGET else "within"


def parse_members(text: str) -> tuple[Member, ...]:
    """What `dram_step.py` wrote of a pass."""
    return tuple(Member(**told) for told in json.loads(text))


def step_of(kind: Kind, members: Sequence[Member], ids: Ids, arch: Architecture) -> Step:
    """The recorded pass as the accounting takes it; `ids` are of its very tokens, [tokens, MoE layers, top_k].

    Raises:
        TraceError: the routing is not of these tokens, or was never recorded (kernels that route themselves).
    """
    moe = arch.moe_blocks[0]
    tokens = sum(member.new_tokens for member in members)
    if len(ids) != tokens:
        raise TraceError(f"vLLM returned the experts of {len(ids)} tokens, the pass computed {tokens}")
    check_routing(ids, num_experts=moe.num_choices, top_k=moe.top_k, num_layers=len(arch.moe_blocks))
    return Step(
        kind=StepKind(kind),
        new_tokens=tuple(member.new_tokens for member in members),
        context_tokens=tuple(member.first_position + member.new_tokens for member in members),
        activated_experts=tuple(map(float, activated_experts(ids))),
        logit_rows=len(members),
    )


def traced_ids(lines: Iterable[str], members: Sequence[Member]) -> Ids:
    """The experts of a pass from what the recording worker wrote, in the order of `members`.

    Raises:
        TraceError: no recorded pass has these members and no others.
    """
    wanted = {(member.request, member.first_position, member.new_tokens) for member in members}
    for traced in parse_trace(line for line in lines if f'"{members[0].request}-' in line):
        rows = _rows_of(traced)
        if rows.keys() == wanted:
            ordered = [rows[member.request, member.first_position, member.new_tokens] for member in members]
            return np.concatenate(ordered)
    raise TraceError(f"the recorder of vLLM saw no pass of {members[0].request} and its like alone")


def _rows_of(traced: TracedPass) -> dict[tuple[str, int, int], Ids]:
    """The experts of each member; vLLM adds a suffix of its own to a request's name."""
    found, row = {}, 0
    for member in traced.members:
        name = member.request_id.rpartition("-")[0]
        found[name, member.first_position, member.num_tokens] = traced.experts[row : row + member.num_tokens]
        row += member.num_tokens
    return found


def compare(
    shape: str, cell: Cell, step: Step, arch: Architecture, storage: StoragePlan, moe_backend: str,
    counters: PassCounters | None,
) -> Row:  # fmt: skip
    """One row: the accounting's bytes, what the kernels' padding adds to them, and the counters'."""
    activated = step.routing_for(arch)
    padding = expert_padding(moe_backend, arch, storage)
    added = 0.0 if padding is None else sum(map(float.__mul__, activated, map(float, padding.added_bytes)))
    account = step_bytes(arch, step, storage)
    return Row(
        shape=shape,
        kind=cell.kind,
        batch=cell.batch,
        new_tokens=step.num_tokens,
        distinct_experts=sum(activated) / len(activated),
        predicted=account.total_read + added,
        padding=added,
        other_written=None if counters is None else counters.written_bytes - account.kv_written - account.state_written,
        counted=None if counters is None else counters.read_bytes,
        kernels=None if counters is None else counters.kernels,
    )


def as_json(row: Row) -> dict[str, Any]:
    """Every value of a row, bytes in its names."""
    return {
        "shape": row.shape, "kind": row.kind, "batch": row.batch, "new_tokens": row.new_tokens,
        "distinct_experts_per_layer": row.distinct_experts, "predicted_bytes": row.predicted,
        "padding_bytes": row.padding, "counted_bytes": row.counted, "other_written_bytes": row.other_written,
        "kernels": row.kernels, "error": row.error, "verdict": row.verdict,
    }  # fmt: skip
