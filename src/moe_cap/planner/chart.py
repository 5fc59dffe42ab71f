"""The deployment chart as data: what devices offer against what models ask, power over bandwidth [P6 Figure 4]."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from moe_cap.architecture import Architecture, LatentAttention, Mixer
from moe_cap.errors import InvalidInputError
from moe_cap.hardware import Cell, CpuPart, Device, DeviceClass
from moe_cap.metrics.footprint import footprint
from moe_cap.planner.demand import planned_step, requirement
from moe_cap.precision import StoragePlan, stored_bytes
from moe_cap.routing import with_all_experts

PUBLISHED_TPOT_S = 0.1
PUBLISHED_CONTEXT_TOKENS = 5120
"""4k of prompt and 1k of answer. The chart does not print its context; this one puts all its lines within 2 %."""


@dataclass(frozen=True, slots=True)
class ChartPoint:
    """What `count` devices offer: datasheet bandwidth and thermal design power, and how far both can be trusted."""

    device_id: str
    name: str
    device_class: str
    count: int
    power_w: float
    bytes_per_s: float
    confidence: str


@dataclass(frozen=True, slots=True)
class ChartLine:
    """What a model asks: bandwidth for one step per `tpot_s`.

    Attributes:
        batch: sequences in the step; None for the line of all experts.
        bytes_per_s: every byte that the step has to read, the accounting of docs/metrics.md.
        bytes_per_s_published: the same counted as the published chart does (see `published_bytes`).
    """

    model: str
    precision: str
    batch: int | None
    bytes_per_s: float
    bytes_per_s_published: float


@dataclass(frozen=True, slots=True)
class DeploymentChart:
    """Points of devices and vertical lines of models, at one target; `left_out` says which devices have no place."""

    tpot_s: float
    context_tokens: int
    points: tuple[ChartPoint, ...]
    lines: tuple[ChartLine, ...]
    left_out: Mapping[str, str]


def deployment_chart(
    models: Mapping[str, tuple[Architecture, StoragePlan]], devices: Iterable[Device], *, cpus: Iterable[CpuPart] = (),
    batches: Sequence[int] = (1,), tpot_s: float = PUBLISHED_TPOT_S, context_tokens: int = PUBLISHED_CONTEXT_TOKENS,
    source_tokens: int | None = None,
) -> DeploymentChart:  # fmt: skip
    """Every device alone, data-centre devices also as a server of eight, racks also whole; and the models' lines.

    Raises:
        InvalidInputError: a target that is not positive.
    """
    points: list[ChartPoint] = []
    left_out: dict[str, str] = {}
    parts: tuple[Device | CpuPart, ...] = (*devices, *cpus)
    for part in parts:
        device_class = part.device_class if isinstance(part, Device) else DeviceClass.HOST
        if part.tdp_w.value is None or part.peak_bytes_per_s.value is None:
            left_out[part.id] = str(part.tdp_w.note or part.peak_bytes_per_s.note)
            continue
        for count in _COUNTS.get(device_class, (1,)):
            points.append(
                ChartPoint(
                    part.id, part.name, device_class.value, count, count * part.tdp_w.value,
                    count * part.peak_bytes_per_s.value, _weaker(part.tdp_w, part.peak_bytes_per_s),
                )
            )  # fmt: skip
    lines = [
        line
        for name, (arch, storage) in models.items()
        for line in _lines(name, arch, storage, batches, tpot_s, context_tokens, source_tokens)
    ]
    return DeploymentChart(tpot_s, context_tokens, tuple(points), tuple(lines), left_out)


_COUNTS = {DeviceClass.DATACENTRE: (1, 8), DeviceClass.RACK: (1, 72)}


def _weaker(one: Cell, other: Cell) -> str:
    order = list(type(one.confidence))
    return max(one.confidence, other.confidence, key=order.index).value


def _lines(
    name: str, arch: Architecture, storage: StoragePlan, batches: Sequence[int], tpot_s: float, context_tokens: int,
    source_tokens: int | None,
) -> Iterable[ChartLine]:  # fmt: skip
    if not batches:
        raise InvalidInputError("batches: expected at least one number of sequences")
    for number, batch in enumerate(batches):
        needed = requirement(
            arch, storage, batch=batch, context_tokens=context_tokens, tpot_s=tpot_s, source_tokens=source_tokens
        )
        if number == 0:
            every = published_bytes(arch, storage, batch=batch, context_tokens=context_tokens, all_experts=True)
            yield ChartLine(name, storage.name, None, needed.bytes_per_s_all_experts, every / tpot_s)
        sparse = published_bytes(arch, storage, batch=batch, context_tokens=context_tokens)
        yield ChartLine(name, storage.name, batch, needed.bytes_per_s, sparse / tpot_s)


def published_bytes(
    arch: Architecture, storage: StoragePlan, *, batch: int, context_tokens: int, all_experts: bool = False
) -> float:
    """Bytes of a decode step as the published chart counts them: more than a step reads.

    All parameters but the experts that are not activated, so the whole embedding too, and the KV cache of every head as
    if latent attention cached keys and values in full. At 5,120 tokens of context this gives all four lines that can be
    read off the chart within 2 %; the accounting itself differs for latent attention, whose cache is 71 times smaller.
    """
    step = planned_step(arch, batch=batch, context_tokens=context_tokens, tpot_s=1.0, zipf_exponent=0.0)
    activated = (with_all_experts(step, arch) if all_experts else step).activated_experts or ()
    unused = sum(
        group.expert_bytes * sum(group.moe.num_experts - activated[row] for row in group.rows)
        for group in footprint(arch, storage).experts
    )
    cached = sum(_expanded_elements(layer.mixer, context_tokens) for layer in arch.layers)
    return stored_bytes(arch, storage) - unused + batch * cached * storage.kv.bits / 8


def _expanded_elements(mixer: Mixer, context_tokens: int) -> int:
    if isinstance(mixer, LatentAttention):
        width = mixer.qk_nope_head_dim + mixer.qk_rope_head_dim + mixer.v_head_dim
        return mixer.num_heads * width * mixer.reach.cached(context_tokens)
    return mixer.kv_cached(context_tokens)
