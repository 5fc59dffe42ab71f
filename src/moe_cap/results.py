"""Published results: immutable records, and a table that is derived from them.

`runs/<year-month>/<first two of id>/<id>.json` holds one result and is written once. `snapshots/` holds all of them as
one Parquet table, to which the README's `configs` point, so that `datasets.load_dataset` reads folder and repository
alike. This module keeps bytes; `moe_cap.result` knows what they mean.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from random import Random, SystemRandom

from moe_cap.errors import AlreadyPublishedError, InvalidInputError, NotFoundError, StoreError
from moe_cap.store import Change, Store, transact, view
from moe_cap.store.base import read_many
from moe_cap.store.blobs import has_content_id

log = logging.getLogger(__name__)

TABLE = "snapshots/leaderboard.parquet"
MANIFEST = "snapshots/manifest.json"
CARD = "README.md"

Table = tuple[bytes, Mapping[str, object]]
"""Parquet bytes, and what the manifest says of them; `written_at` is added to it."""

_ID = re.compile(r"[0-9a-f]{8,64}")
_YEAR_MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])")
_RUN = re.compile(r"runs/\d{4}-\d{2}/([0-9a-f]{2})/(\1[0-9a-f]{6,62})\.json")


class ResultStore:
    """Results in a store. Safe to share between threads; all methods raise StoreError as the store does."""

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        rng: Random | None = None,
    ) -> None:
        """Prepare; nothing is read yet. `clock` gives seconds since 1970, `sleep` and `rng` pace repeated attempts."""
        self._store = store
        self._clock = clock
        self._sleep = sleep
        self._rng = rng or SystemRandom()
        self._contents: dict[str, bytes] = {}

    def publish(self, record: Mapping[str, object] | bytes, *, result_id: str, year_month: str) -> None:
        """Write one result, once. The same content again, as after a lost answer, changes nothing.

        Args:
            record: its bytes, or a mapping that becomes JSON.
            result_id: 8 to 64 hex digits.
            year_month: when it was made, `2026-11`; only sorts the files.

        Raises:
            AlreadyPublishedError: another content has this id.
            InvalidInputError: an id or month that cannot be part of a path.
        """
        if not _ID.fullmatch(result_id) or not _YEAR_MONTH.fullmatch(year_month):
            raise InvalidInputError(f"result id {result_id!r} and month {year_month!r}: give hex digits and YYYY-MM")
        data = record if isinstance(record, bytes) else _json(record)
        path = f"runs/{year_month}/{result_id[:2]}/{result_id}.json"

        def is_there(rev: str) -> bool:
            place = self._places(rev).get(result_id)
            return place is not None and has_content_id(data, place[1])

        def plan(rev: str) -> Change | None:
            if is_there(rev):
                return None
            if place := self._places(rev).get(result_id):
                raise AlreadyPublishedError(f"result {result_id} is published with another content, as {place[0]}")
            return Change({path: data}, [], f"publish {result_id}")

        transact(self._store, plan, is_there, sleep=self._sleep, rng=self._rng)

    def check_writable(self) -> None:
        """Find out whether results could be published, without publishing one; raises as `Store.check_writable`."""
        self._store.check_writable()

    def has(self, result_id: str) -> bool:
        """Whether this result is published."""
        return result_id in self.ids()

    def ids(self) -> list[str]:
        """Return the ids of all results, oldest month first."""
        return list(view(self._store, self._places))

    def read(self, result_id: str) -> bytes:
        """Return one record.

        Raises:
            NotFoundError: it is not published here.
        """

        def look(rev: str) -> bytes:
            place = self._places(rev).get(result_id)
            if place is None:
                raise NotFoundError(f"there is no result {result_id} here")
            return self._store.read(place[0], rev)

        return view(self._store, look)

    def read_all(self) -> Iterator[tuple[str, bytes]]:
        """Give every id and record, of one revision, oldest month first; content seen before is not read again.

        A file that cannot be read is logged and left out.
        """
        return iter(view(self._store, self._read_all))

    def revision(self) -> str:
        """Return what changes whenever anything in the store did."""
        return self._store.head()

    def write_snapshot(self, build: Callable[[Sequence[tuple[str, bytes]]], Table]) -> None:
        """Replace the table with one of exactly the records that it is committed onto; the same table writes nothing.

        A store without a README gets the card that makes `datasets.load_dataset` find the table.

        Args:
            build: makes the Parquet bytes and the manifest of all ids and records. It is called again whenever the
                store moved on meanwhile, so that no table of fewer records replaces one of more.
        """
        built = b""

        def is_there(rev: str) -> bool:
            content_id = self._store.list("", rev).get(TABLE)
            return content_id is not None and has_content_id(built, content_id)

        def plan(rev: str) -> Change | None:
            nonlocal built
            built, manifest = build(self._read_all(rev))
            if is_there(rev):
                return None
            written_at = datetime.fromtimestamp(self._clock(), UTC).isoformat(timespec="seconds")
            card = {} if CARD in self._store.list("", rev) else {CARD: read_card()}
            told = _json({**manifest, "written_at": written_at})
            return Change({TABLE: built, MANIFEST: told, **card}, [], "refresh the table of all results")

        transact(self._store, plan, is_there, sleep=self._sleep, rng=self._rng)

    def _places(self, rev: str) -> dict[str, tuple[str, str]]:
        """Return id to path and content id; of a result that a hand copied to another month the older one counts."""
        places: dict[str, tuple[str, str]] = {}
        for path, content_id in sorted(self._store.list("", rev).items()):
            if found := _RUN.fullmatch(path):
                places.setdefault(found[2], (path, content_id))
        return places

    def _read_all(self, rev: str) -> list[tuple[str, bytes]]:
        places, known = self._places(rev), self._contents.copy()
        new = {path: content_id for path, content_id in places.values() if content_id not in known}
        for path, data in read_many(self._store, list(new), rev):
            if isinstance(data, StoreError):
                log.warning("a result is left out: %s", data)
            else:
                known[new[path]] = data
        found = [(result_id, content_id) for result_id, (_, content_id) in places.items() if content_id in known]
        self._contents = {content_id: known[content_id] for _, content_id in found}
        return [(result_id, known[content_id]) for result_id, content_id in found]


def read_card() -> bytes:
    """Return the README of a new results store; its YAML head is what the Hub and `datasets` read."""
    return (files("moe_cap") / "cards" / "results.md").read_bytes()


def _json(record: Mapping[str, object]) -> bytes:
    try:
        text = json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"this cannot be stored as JSON: {error}") from error
    return f"{text}\n".encode()
