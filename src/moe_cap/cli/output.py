"""How commands speak: one JSON document for programs, a tidy table for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]

BESIDE_DIGITS = str.maketrans("", "", ",.-e± =")
"""What stands in a number beside its digits: separators, an exponent, its interval, the mark of a tie."""
UNLIMITED_WIDTH = 10_000
"""Of a pipe: whoever reads it wants whole cells."""


def print_json(document: Any) -> None:
    """Print one document; numbers unrounded, unknown ones null."""
    typer.echo(json.dumps(document, indent=2, allow_nan=False, default=str))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows under headings; columns of numbers are set to the right."""
    cells = [[show(cell) for cell in row] for row in rows]
    numeric = [all(_is_number(row[i]) for row in cells) and bool(cells) for i in range(len(columns))]
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading, right in zip(columns, numeric, strict=True):
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for row in cells:
        table.add_row(*row)
    _console().print(table)


def print_facts(title: str, facts: Mapping[str, object]) -> None:
    """Print names and values below each other."""
    print_table(title, ("", ""), facts.items())


def show(value: object) -> str:
    """A cell as text: thousands separated, unknown as n/a.

    >>> show(1234567), show(0.00213456), show(1234.5678), show(None), show(True)
    ('1,234,567', '0.002135', '1,234.57', 'n/a', 'yes')
    """
    match value:
        case None:
            return "n/a"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float() if value.is_integer() and abs(value) < 1e18:
            return f"{int(value):,}"
        case float():
            return f"{value:,.2f}" if abs(value) >= 100 else f"{value:.4g}"
        case _:
            return str(value)


def _is_number(text: str) -> bool:
    return text == "n/a" or text.translate(BESIDE_DIGITS).isdigit()


def _console() -> Console:
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=UNLIMITED_WIDTH)
