"""How the canonical table looks: titles, display units, help and default visibility. Nothing here changes data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from moe_cap.quantity import QUANTITIES, Better, QuantitySpec


@dataclass(frozen=True, slots=True)
class Column:
    """One column on screen.

    Attributes:
        field: column of the canonical frame, or of the composed ones in `payload`.
        title, unit: heading; the unit is the displayed one, "" for none.
        help: one sentence of definition.
        group: heading in the column chooser.
        kind: how the cell is drawn and filtered.
        scale: displayed value over canonical value.
        decimals: digits after the point; small values show two significant digits instead, never a false 0.
        better: direction in which a higher place is deserved.
        visible: shown before a person chooses.
        width: pixels.
    """

    field: str
    title: str
    help: str
    group: str
    kind: Literal["text", "number"] = "text"
    unit: str = ""
    scale: float = 1.0
    decimals: int = 0
    better: Better = "neither"
    visible: bool = False
    width: int = 120

    @property
    def heading(self) -> str:
        """Title with its unit, unless the title says it."""
        return f"{self.title} ({self.unit})" if self.unit and self.unit not in self.title else self.title

    def show(self, value: float) -> str:
        """Write a canonical value in this column's unit; the grid's script follows the same rule."""
        return show_number(value * self.scale, self.decimals)


def show_number(value: float, decimals: int) -> str:
    """Fixed digits, thousands separated; two significant digits where the fixed ones would hide the value.

    >>> show_number(1544.68, 2), show_number(0.0021, 2), show_number(0.0, 1), show_number(3.0, 0)
    ('1,544.68', '0.0021', '0.0', '3')
    """
    if 0 < abs(value) < 10 ** (1 - decimals) and value != int(value):
        return f"{value:.2g}"
    return f"{value:,.{decimals}f}"


REPEATED_QUANTITIES = (
    "output_tokens_per_s", "ttft_s_p50", "tpot_s_p50", "decode_s_mbu", "decode_s_mfu",
    "usd_per_million_output_tokens_owner",
)  # fmt: skip
"""Shown by default, and different in every repeat: each has the half width of its 95 % interval beside it."""
VISIBLE_QUANTITIES = {*REPEATED_QUANTITIES, "purchase_usd"}


@dataclass(frozen=True, slots=True)
class Spread:
    """How uncertain a column is: the field that says it, in words, and times what it is half a 95 % interval."""

    field: str
    what: str
    to_95: float


def interval_field(name: str) -> str:
    """Column of the canonical frame with the half width of a quantity's 95 % interval over repeats."""
    return f"{name}_ci95"


SPREADS = {
    **{
        name: Spread(interval_field(name), "half of the 95 % interval over repeats", 1.0)
        for name in REPEATED_QUANTITIES
    },
    "accuracy": Spread("accuracy_stderr", "standard error over problems", 1.96),
}
_UNITS: dict[str, tuple[str, float, int]] = {
    "s": ("ms", 1e3, 2), "1": ("%", 100.0, 2), "B": ("GB", 1e-9, 2), "FLOP": ("GFLOP", 1e-9, 2), "tok/s": ("tok/s", 1.0, 2),
    "USD": ("kUSD", 1e-3, 2), "experts": ("", 1.0, 1), "tok/USD": ("tok/USD", 1.0, 0), "tok/kWh": ("tok/kWh", 1.0, 0),
}  # fmt: skip


def _display_unit(spec: QuantitySpec) -> tuple[str, float, int]:
    if spec.group == "run":
        return "", 1.0, 0
    if spec.name.startswith("e2e_s"):
        return "s", 1.0, 2
    return _UNITS.get(spec.unit, (spec.unit, 1.0, 2))


def _quantity(name: str, width: int = 116) -> Column:
    spec = QUANTITIES[name]
    unit, scale, decimals = _display_unit(spec)
    return Column(
        name, spec.title.removesuffix(f" {unit}"), spec.meaning, spec.group.capitalize(), "number", unit, scale, decimals,
        spec.better, name in VISIBLE_QUANTITIES, width,
    )  # fmt: skip


_SYSTEM = (
    Column("model", "Model", "Weights that were measured.", "System", visible=True, width=172),
    Column("cap_class", "Class", "The two of cost, accuracy and performance that the system is good at, by its price and against a fixed reference.", "System", visible=True, width=72),
    Column("engine", "Engine", "Serving engine.", "System", visible=True, width=118),
    Column("precision", "Precision", "Number format of the weights.", "System", visible=True, width=98),
    Column("load", "Load", "What the engine was asked to carry.", "Load", visible=True, width=146),
    Column("accuracy", "Accuracy", "Score of the task through this very engine and precision.", "Accuracy", "number", "%", 100, 2, "higher", visible=True, width=104),
    _quantity("output_tokens_per_s", width=106),
    _quantity("purchase_usd", width=104),
    Column("task", "Task", "Accuracy task.", "Accuracy", visible=True, width=106),
    Column("hardware", "Hardware", "Number and name of the devices.", "System", visible=True, width=186),
    Column("kind", "Source", "Measured by this code, or reported by the cited source.", "System", visible=True, width=112),
)  # fmt: skip
_MORE = (
    Column("accuracy_stderr", "Accuracy ±", "Standard error of the score.", "Accuracy", "number", "%", 100, 2, "lower", width=116),
    Column("no_answer_rate", "No answer", "Answers from which nothing could be extracted.", "Accuracy", "number", "%", 100, 2, "lower"),
    Column("num_samples", "Problems", "Problems that were scored.", "Accuracy", "number"),
    Column("accuracy_metric", "Metric", "What the score counts.", "Accuracy"),
    Column("model_type", "Family", "Architecture family of the model.", "System"),
    Column("parameters_total", "Parameters", "All parameters.", "System", "number", "B", 1e-9, 2),
    Column("parameters_active", "Active", "Parameters that one token uses.", "System", "number", "B", 1e-9, 2),
    Column("weights_bytes", "Weights", "Bytes of all weights as stored for the run.", "System", "number", "GB", 1e-9, 2),
    Column("revision", "Revision", "Commit or content hash of the weights.", "System"),
    Column("engine_version", "Engine version", "As the engine says it.", "System"),
    Column("quantisation", "Quantisation", "Method and library.", "System"),
    Column("num_devices", "Devices", "Number of devices.", "System", "number"),
    Column("tensor_parallel", "TP", "Tensor parallel ranks.", "System", "number"),
    Column("concurrency", "Concurrency", "Requests in flight (closed loop).", "Load", "number"),
    Column("batch_size", "Batch", "Sequences in a step.", "Load", "number"),
    Column("input_tokens", "Input", "Prompt length.", "Load", "number", "tok"),
    Column("output_tokens", "Output", "Answer length.", "Load", "number", "tok"),
    Column("routing_source", "Routing", "How the routing was obtained.", "Routing"),
    Column("validity", "Validity", "Whether the row broke a validity rule, and which; invalid rows are never ranked.", "System"),
    Column("created_at", "Date", "When the record was made.", "System", width=110),
)  # fmt: skip
_FIRST = {column.field for column in _SYSTEM}
_OTHERS = tuple(_quantity(name) for name in QUANTITIES if name not in _FIRST)

COLUMNS: tuple[Column, ...] = (
    *_SYSTEM,
    *(c for c in _OTHERS if c.visible),
    *_MORE,
    *(c for c in _OTHERS if not c.visible),
)
BY_FIELD: dict[str, Column] = {column.field: column for column in COLUMNS}
