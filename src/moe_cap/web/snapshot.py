"""What the page knows: a copy of both stores in memory, renewed in the background, kept when a store is away."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

import pandas as pd

from moe_cap import board
from moe_cap.errors import BusyError, MoECapError
from moe_cap.queue import Request
from moe_cap.result import Result
from moe_cap.web.responses import Encoded, encode

log = logging.getLogger(__name__)

PATIENCE_S = 5.0
"""Within this the usual store is read before the first visitor comes."""


class ResultsSource(Protocol):
    """What is read of a results store."""

    def revision(self) -> str:
        """Changes whenever a result was added."""

    def read_all(self) -> Iterable[tuple[str, bytes]]:
        """Every record: id and bytes."""


class QueueSource(Protocol):
    """What is read of a queue."""

    def requests(self) -> Iterable[Request]:
        """Every request, in any state."""


@dataclass(frozen=True)
class Board:
    """All readable results at one revision of the store, and the forms in which they are sent.

    `records` are the very bytes that the store's own cache holds, not a copy; a revision of "" was never read.
    """

    revision: str
    results: Mapping[str, Result]
    records: Mapping[str, bytes]
    unreadable: Mapping[str, str]
    table: pd.DataFrame
    grid: Encoded
    _files: dict[str, Encoded] = field(default_factory=dict)

    def file(self, file_format: str) -> Encoded:
        """The table as a file, made on first use.

        Raises:
            InvalidInputError: no such format.
        """
        if file_format not in self._files:
            body = board.export(self.table, file_format)
            self._files[file_format] = encode(body, board.FORMATS[file_format][0])
        return self._files[file_format]


@dataclass(frozen=True)
class Snapshot:
    """One moment of both stores; `trouble` says why it may be older than `looked_at`."""

    board: Board
    requests: tuple[Request, ...]
    queue_version: str
    looked_at: datetime
    trouble: str | None = None


def build_board(revision: str, records: Mapping[str, bytes], known: Mapping[str, Result]) -> Board:
    """Parse what is new, newest measured first, then reported in the order of their source."""
    results, unreadable = board.parse_records(records.items(), known)
    ordered = {result.id: result for result in sorted(results.values(), key=_order)}
    table = board.frame(ordered.values())
    grid = json.dumps(board.payload(table), allow_nan=False, separators=(",", ":")).encode()
    return Board(revision, ordered, records, unreadable, table, encode(grid, "application/json"))


def _order(result: Result) -> tuple[bool, float, str, str, int, str, str]:
    place = result.citation.place if result.citation else ""
    made = -result.created_at.timestamp()
    system = (result.model.name, result.hardware.num_devices, result.precision, result.id)
    return result.kind == "reported", made, place, *system


class Mirror:
    """Keeps the newest good snapshot. `look` may be called from any thread; readers never wait."""

    def __init__(
        self, results: ResultsSource, queue: QueueSource, *, now: Callable[[], datetime], every_s: float
    ) -> None:
        self._results = results
        self._queue = queue
        self._now = now
        self._every_s = every_s
        self._looking = threading.Lock()
        self._stop = threading.Event()
        self._looked = threading.Event()
        self._thread: threading.Thread | None = None
        self.current = Snapshot(build_board("", {}, {}), (), "", now(), "the stores were not read yet")

    def read(self) -> Snapshot:
        """The last good snapshot, for whoever must not take a store that was never read for an empty one.

        Raises:
            BusyError: the stores were not read yet.
        """
        now = self.current
        if not now.board.revision:
            raise BusyError(f"not yet: {now.trouble}", wait_s=PATIENCE_S)
        return now

    def look(self) -> Snapshot:
        """Read both stores now; on failure the last good snapshot stays, with the trouble named."""
        with self._looking:
            last = self.current
            try:
                newest = self._read(last)
            except (MoECapError, OSError) as error:
                log.warning("the stores could not be read: %s", error)
                newest = replace(last, trouble=str(error))
            except Exception as error:  # whatever it was, the page must say that it is stale, and look again
                log.exception("the stores could not be read")
                newest = replace(last, trouble=f"the stores could not be read ({type(error).__name__})")
            self.current = newest
            return newest

    def _read(self, last: Snapshot) -> Snapshot:
        revision = self._results.revision()
        latest = last.board
        if revision != latest.revision:
            latest = build_board(revision, dict(self._results.read_all()), latest.results)
        requests = tuple(self._queue.requests())
        version = hashlib.sha256(repr(requests).encode()).hexdigest()[:20]
        return Snapshot(latest, requests, version, self._now())

    def start(self, *, patience_s: float = PATIENCE_S) -> None:
        """Look, now and every so often, in a thread that ends with `stop`.

        Args:
            patience_s: how long to wait for the first look; a store that takes longer fills a page that is served
                already, and which asks for changes by itself.
        """
        self._thread = threading.Thread(target=self._keep_looking, name="mirror", daemon=True)
        self._thread.start()
        self._looked.wait(patience_s)

    def _keep_looking(self) -> None:
        self.look()
        self._looked.set()
        while not self._stop.wait(self._every_s):
            self.look()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
