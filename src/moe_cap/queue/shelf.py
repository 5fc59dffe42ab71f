"""The records of the queue as they lie in the store at one revision, each parsed once."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from moe_cap.errors import RecordError, StoreError
from moe_cap.queue.record import STATES, Request, State, parse_path, parse_request
from moe_cap.store.base import Store, read_many

log = logging.getLogger(__name__)

_PRECEDENCE = (State.RUNNING, State.FINISHED, State.FAILED, State.CANCELLED, State.PENDING)
"""Which copy counts when a hand or a merge left a request in two folders: never the one that would run it twice."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One record's place: the state that its folder says, and the id of its content."""

    state: State
    path: str
    content_id: str


@dataclass(frozen=True, slots=True)
class Index:
    """All places at one revision, by request id, and the files that are no records."""

    rev: str
    entries: Mapping[str, Entry]
    problems: tuple[RecordError, ...]


class Shelf:
    """Reads requests out of a store. Safe to share between threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._index: Index | None = None
        self._parsed: dict[Entry, Request | RecordError] = {}
        self._refused: set[Entry] = set()

    def index(self, rev: str) -> Index:
        """Return what lies where at `rev`; raises what `Store.list` raises."""
        index = self._index
        if index is None or index.rev != rev:
            index = self._index = _build_index(rev, self._store.list("", rev))
        return index

    def find(self, request_id: str, rev: str) -> Request | None:
        """Return one request, None if there is none.

        Raises:
            RecordError: its file cannot be used.
        """
        entry = self.index(rev).entries.get(request_id)
        if entry is None:
            return None
        found = self._parsed.get(entry)
        if found is None:
            found = self._parsed[entry] = _parse(self._store.read(entry.path, rev), entry)
        if isinstance(found, RecordError):
            raise found
        return found

    def all(self, rev: str, states: Collection[State] = tuple(State)) -> tuple[list[Request], list[RecordError]]:
        """Return the requests in `states`, oldest first, and what could not be used."""
        index = self.index(rev)
        wanted = [entry for entry in index.entries.values() if entry.state in states]
        parsed = self._parse_all(wanted, index)
        requests = [found for found in map(parsed.__getitem__, wanted) if isinstance(found, Request)]
        broken = [found for found in map(parsed.__getitem__, wanted) if isinstance(found, RecordError)]
        return sorted(requests, key=lambda request: (request.submitted_at, request.id)), [*index.problems, *broken]

    def _parse_all(self, wanted: Sequence[Entry], index: Index) -> Mapping[Entry, Request | RecordError]:
        live = set(index.entries.values())
        parsed = {entry: found for entry, found in self._parsed.copy().items() if entry in live}
        new = [entry for entry in wanted if entry not in parsed]
        refused: dict[Entry, RecordError] = {}
        contents = read_many(self._store, [entry.path for entry in new], index.rev)
        for entry, (path, data) in zip(new, contents, strict=True):
            if isinstance(data, StoreError):
                refused[entry] = RecordError(f"{path}: {data}", path=path)
            else:
                parsed[entry] = _parse(data, entry)
        self._parsed = parsed
        self._tell(refused)
        return {**parsed, **refused}

    def _tell(self, refused: Mapping[Entry, RecordError]) -> None:
        """Say once what the store would not give; it is asked again at every look."""
        for entry in refused.keys() - self._refused:
            log.warning("left out of the queue for now: %s", refused[entry])
        self._refused = set(refused)


def _parse(data: bytes, entry: Entry) -> Request | RecordError:
    try:
        return parse_request(data, entry.path)
    except RecordError as error:
        log.warning("left out of the queue: %s", error)
        return error


def _build_index(rev: str, listing: Mapping[str, str]) -> Index:
    entries: dict[str, Entry] = {}
    problems: list[RecordError] = []
    for path, content_id in sorted(listing.items()):
        if path.partition("/")[0] not in STATES:
            continue
        try:
            state, request_id = parse_path(path)
        except RecordError as error:
            problems.append(error)
            continue
        entry, other = Entry(state, path, content_id), entries.get(request_id)
        if other is not None:
            entry, shadowed = sorted((entry, other), key=lambda each: _PRECEDENCE.index(each.state))
            twice = f"{shadowed.path}: the same request is in {entry.state}/, and that one counts; remove one of them"
            problems.append(RecordError(twice, path=shadowed.path))
        entries[request_id] = entry
    return Index(rev, entries, tuple(problems))
