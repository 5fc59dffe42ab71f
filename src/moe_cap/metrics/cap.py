"""Cost, accuracy, performance: fixed scales for the radar, and the class that follows from them (docs/cost.md).

Every scale is fixed by numbers in this file, so adding or removing a system never moves another one. Cost and
performance are logarithmic around a named reference: 0.5 is the reference, 1 is `DECADES` factors of ten better, 0 as
many worse. Accuracy and utilisations are their own scale, 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from moe_cap.errors import InvalidInputError
from moe_cap.metrics.cost import Basis

DECADES = 2.0
REFERENCE = "Mixtral-8x22B in bf16 on vLLM, 4 x A100-80GB, batch 32, GSM8K (MoE-CAP v1, Table 2)"
CONVENTION = "a round number by convention"


@dataclass(frozen=True, slots=True)
class Scale:
    """How a quantity becomes a place on its axis.

    Attributes:
        name: of the quantity, as in `quantity.QUANTITIES` (and `accuracy`).
        better: which direction is outward.
        reference: the raw value at 0.5 of a logarithmic scale; None for a quantity that is its own scale.
        anchor: where the reference comes from.
    """

    name: str
    title: str
    unit: str
    better: str
    reference: float | None
    anchor: str

    def place(self, raw: float) -> float:
        """Place on the axis, not clipped.

        Raises:
            InvalidInputError: not a finite number, or not above 0 on a logarithmic scale.
        """
        if not math.isfinite(raw) or (self.reference is not None and raw <= 0):
            raise InvalidInputError(
                f"{self.name} is {raw!r}: expected a finite number on its scale, or None for unknown"
            )
        if self.reference is None:
            return raw
        decades = math.log10(raw / self.reference)
        return 0.5 + (decades if self.better == "higher" else -decades) / (2 * DECADES)


def _scales() -> dict[str, Scale]:
    # Token costs of the reference system: 4 GPUs at 2.21 USD/h (CoreWeave, February 2024) for rental; for the others
    # 92,100 USD over five years and 4 x 300 W at 0.15 USD/kWh; each over its 104.0 tokens/s. Written out, so that no
    # later price moves a scale; tests/metrics/test_cap.py does the sums.
    per_million = "USD per million output tokens"
    logarithmic = (
        Scale("purchase_usd", "Cost", "USD", "lower", 92_100.0, REFERENCE),
        Scale("usd_per_million_output_tokens_paper", "Cost", per_million, "lower", 6.09, REFERENCE),
        Scale("usd_per_million_output_tokens_owner", "Cost", per_million, "lower", 6.09, REFERENCE),
        Scale("usd_per_million_output_tokens_rental", "Cost", per_million, "lower", 23.6, REFERENCE),
        Scale("output_tokens_per_s", "Performance", "tokens/s", "higher", 104.0, REFERENCE),
        Scale("tpot_s_p50", "Time per token", "s", "lower", 0.1, "the deployment target of MoE-CAP v1, section 4.4"),
        Scale("ttft_s_p50", "Time to first token", "s", "lower", 1.0, CONVENTION),
        Scale("j_per_output_token", "Energy", "J/token", "lower", 1.0, CONVENTION),
    )
    shares = (
        ("accuracy", "Accuracy"),
        ("decode_s_mbu", "S-MBU (decode)"),
        ("decode_s_mfu", "S-MFU (decode)"),
        ("prefill_s_mfu", "S-MFU (prefill)"),
    )
    linear = (Scale(name, title, "1", "higher", None, "its own scale, 0 to 1") for name, title in shares)
    return {scale.name: scale for scale in (*logarithmic, *linear)}


SCALES: Mapping[str, Scale] = _scales()

COST_AXIS: Mapping[Basis, str] = {
    Basis.PAPER: "purchase_usd",
    Basis.OWNER: "usd_per_million_output_tokens_owner",
    Basis.RENTAL: "usd_per_million_output_tokens_rental",
}
"""Which quantity the cost axis shows on each basis; the paper's tables print the server's price."""


def cap_axes(basis: Basis) -> tuple[str, str, str]:
    """The three axes of the radar on one basis: cost, accuracy, performance."""
    return COST_AXIS[basis], "accuracy", "output_tokens_per_s"


@dataclass(frozen=True, slots=True)
class Axis:
    """One system on one axis.

    Attributes:
        value: place, 0 to 1 within the scale and beyond it outside; None when the raw value is unknown.
        shown: `value` clipped to 0..1, for drawing.
        clipped: whether that lost something, so that the drawing can mark it.
        raw, unit: for the hover.
    """

    name: str
    title: str
    value: float | None
    shown: float | None
    clipped: bool
    raw: float | None
    unit: str


def radar_axes(values: Mapping[str, float | None], names: Sequence[str]) -> list[Axis]:
    """Places of one system on the named axes; a quantity that is missing or None has no place.

    Raises:
        InvalidInputError: no scale is defined for a name, or a value is impossible on it.
    """
    unknown = [name for name in names if name not in SCALES]
    if unknown:
        raise InvalidInputError(f"no scale for {', '.join(unknown)}: expected some of {', '.join(SCALES)}")
    return [_axis(SCALES[name], values.get(name)) for name in names]


def _axis(scale: Scale, raw: float | None) -> Axis:
    if raw is None:
        return Axis(scale.name, scale.title, None, None, False, None, scale.unit)
    value = scale.place(raw)
    shown = min(max(value, 0.0), 1.0)
    return Axis(scale.name, scale.title, value, shown, shown != value, raw, scale.unit)


class CapClass(StrEnum):
    """The two of cost, accuracy and performance that a system is good at."""

    PA = "PA"
    PC = "PC"
    CA = "CA"


@dataclass(frozen=True, slots=True)
class Classification:
    """A class with the reason in words; no class, and then the reason why not, where a value is unknown."""

    cap_class: CapClass | None
    reason: str


REFERENCE_ACCURACY: Mapping[str, float] = {"gsm8k": 0.826, "arena_hard": 0.3298}
"""Accuracy of the reference model in bf16 by task (MoE-CAP v1, Tables 2 and 3)."""

TIE = 0.005
"""Places on an axis that are nearer than this count as equal: 2 % in cost and performance, half a point in accuracy."""

_GIVEN_UP = {"cost": CapClass.PA, "performance": CapClass.CA, "accuracy": CapClass.PC}


def classify(
    *, cost: float | None, accuracy: float | None, output_tokens_per_s: float | None, task: str | None,
    basis: Basis = Basis.PAPER,
) -> Classification:  # fmt: skip
    """The class of a system by one rule: it gives up the axis on which it stands worst against the reference.

    How it stands is the distance between its place and the reference's, on the fixed scales. Of axes that are equally
    bad (within `TIE`) cost counts as given up before performance, and performance before accuracy; so a system that
    equals the reference is PA, as the paper calls it.

    Args:
        cost: the quantity of `COST_AXIS[basis]`.
        accuracy: score of `task`, 0 to 1.
        output_tokens_per_s: the performance axis.
        task: classes need one that the reference was scored on (`REFERENCE_ACCURACY`).
        basis: which cost it is.
    """
    if cost is None or accuracy is None or output_tokens_per_s is None:
        values = {"cost": cost, "accuracy": accuracy, "performance": output_tokens_per_s}
        missing = " and ".join(name for name, value in values.items() if value is None)
        return Classification(None, f"no class: {missing} unknown")
    if task is None or task not in REFERENCE_ACCURACY:
        return Classification(None, f"no class: the reference was not scored on {task or 'any task of this row'}")
    cost_scale, speed_scale = SCALES[COST_AXIS[basis]], SCALES["output_tokens_per_s"]
    margins = {
        "cost": cost_scale.place(cost) - 0.5,
        "performance": speed_scale.place(output_tokens_per_s) - 0.5,
        "accuracy": SCALES["accuracy"].place(accuracy) - REFERENCE_ACCURACY[task],
    }
    worst = min(margins.values())
    given_up = next(name for name, margin in margins.items() if margin <= worst + TIE)
    words = ", ".join(f"{name} {margin:+.3f}" for name, margin in margins.items())
    return Classification(_GIVEN_UP[given_up], f"gives up {given_up}: places against the reference are {words}")
