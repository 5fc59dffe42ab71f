"""The table of a profile on a screen: figures with their intervals, ties marked, and the same for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from moe_cap.cli.output import print_table, show
from moe_cap.measure.profile.figures import Figure

Row = Sequence[object]
TIE = "="


def print_rows(headings: Sequence[str], rows: Sequence[Row]) -> None:
    """Print the table, and below it what its signs mean, as far as it has them."""
    figures = [cell for row in rows for cell in row if isinstance(cell, Figure)]
    print_table("", headings, [[_text(cell) for cell in row] for row in rows])
    if any(figure.half_width is not None for figure in figures):
        typer.echo("± half of the 95 % interval (speed: over repeats; accuracy: 1.96 standard errors over problems)")
    if any(figure.ties for figure in figures):
        typer.echo(f"{TIE} overlaps the best of its column: a tie")


def as_documents(headings: Sequence[str], rows: Sequence[Row]) -> dict[str, Any]:
    """The same for programs: values as numbers, and of every row the intervals and the ties by heading."""
    figures = [
        {title: cell for title, cell in zip(headings, row, strict=True) if isinstance(cell, Figure)} for row in rows
    ]
    return {
        "rows": [[cell.value if isinstance(cell, Figure) else cell for cell in row] for row in rows],
        "intervals_95": [
            {title: figure.half_width for title, figure in row.items() if figure.half_width is not None}
            for row in figures
        ],
        "ties": [[title for title, figure in row.items() if figure.ties] for row in figures],
    }


def _text(cell: object) -> object:
    if not isinstance(cell, Figure):
        return cell
    spread = "" if cell.half_width is None else f" ± {show(float(f'{cell.half_width:.2g}'))}"
    return f"{show(cell.value)}{spread}{f' {TIE}' if cell.ties else ''}"
