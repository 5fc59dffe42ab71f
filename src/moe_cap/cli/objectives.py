"""Service level objectives on the command line: `--slo ttft=0.5 --slo tpot=0.05`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from moe_cap.errors import SubmissionError

Slo = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=SECONDS", help="What goodput counts: ttft, tpot or e2e at most so long; repeat for several."
    ),
]


def read_objectives(given: Sequence[str] | None) -> dict[str, str] | None:
    """`["ttft=0.5"]` as a submission has it; None where nothing is given.

    Raises:
        SubmissionError: not NAME=SECONDS.
    """
    found = {}
    for pair in given or ():
        name, equals, limit = pair.partition("=")
        if not equals:
            raise SubmissionError(
                f"objectives: --slo {pair}: give ttft=SECONDS, tpot=SECONDS or e2e=SECONDS", field="objectives"
            )
        found[f"{name.removesuffix('_s')}_s"] = limit
    return found or None
