"""The results of a profile on their way into the store; a store that is away ends no measurement."""

from __future__ import annotations

from dataclasses import dataclass

import typer

from backend.publishing import Publisher
from moe_cap.errors import BusyError, ResultError, StoreError
from moe_cap.result import Result


@dataclass(frozen=True, slots=True)
class Unpublished:
    """A result that is not in the store, and why."""

    cell: str
    result_id: str
    reason: str


class Publication:
    """Publishes each result as soon as it is there; what the store did not take is tried once more at the end.

    Results with an invalid point are not for others: they stay in the output folder.
    """

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._waiting: list[tuple[str, Result]] = []
        self.published: list[str] = []
        self.unpublished: list[Unpublished] = []
        self.trouble: str | None = None
        """Why the table of all results is not up to date; None where it is."""

    def check(self) -> None:
        """Refuse to measure for a store that takes nothing; one that only does not answer now may do so later.

        Raises:
            StoreError: it may not be written to.
        """
        try:
            self._publisher.check_writable()
        except BusyError as error:
            typer.echo(f"the store does not answer now, results are published when it does: {error}", err=True)

    def offer(self, cell: str, result: Result) -> None:
        """Publish a result if it may be; what cannot be published now waits for `retry`."""
        if reasons := why_invalid(result):
            self.unpublished.append(Unpublished(cell, result.id, f"invalid: {reasons}"))
            return
        if (trouble := self._trouble_with(result)) is not None:
            typer.echo(f"{cell}: not published yet: {trouble}", err=True)
            self._waiting.append((cell, result))

    def retry(self) -> None:
        """Offer what waits once more; what is refused again stays unpublished."""
        for cell, result in self._waiting:
            if (trouble := self._trouble_with(result)) is not None:
                self.unpublished.append(Unpublished(cell, result.id, str(trouble)))
        self._waiting.clear()

    def refresh_table(self) -> None:
        """Bring the table beside the results up to date, if something was published."""
        if not self.published:
            return
        try:
            self._publisher.refresh_table()
        except StoreError as error:
            self.trouble = str(error)

    def _trouble_with(self, result: Result) -> StoreError | ResultError | None:
        try:
            self.published.append(self._publisher.publish(result))
        except (StoreError, ResultError) as error:
            return error
        return None


def why_invalid(result: Result) -> str:
    """Every rule that a point of a result broke, each once; empty where all of it is valid."""
    return "; ".join(dict.fromkeys(rule for point in result.points for rule in point.invalid))
