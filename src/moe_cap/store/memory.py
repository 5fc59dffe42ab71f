"""A store in memory, with all of its history: for tests, demonstrations and notebooks."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from moe_cap.errors import ConflictError, NotFoundError
from moe_cap.store.base import blob_id, check_change, check_prefix


class MemoryStore:
    """A Store that lives and ends with this process; revisions are `r0`, `r1`, ..."""

    heartbeat_s = 2.0
    parallel_reads = 1

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._history: dict[str, dict[str, bytes]] = {"r0": {}}
        self._head = "r0"

    def head(self) -> str:
        """Return the newest revision."""
        return self._head

    def list(self, prefix: str, rev: str) -> dict[str, str]:
        """Return path to content id below `prefix` at `rev`."""
        check_prefix(prefix)
        return {path: blob_id(data) for path, data in self._at(rev).items() if path.startswith(prefix)}

    def read(self, path: str, rev: str) -> bytes:
        """Return the bytes of `path` at `rev`."""
        try:
            return self._at(rev)[path]
        except KeyError:
            raise NotFoundError(f"{path} is not in this store at {rev}") from None

    def commit(self, puts: Mapping[str, bytes], deletes: Sequence[str], parent: str, message: str) -> str:
        """Append a revision if the head is still `parent`."""
        check_change(puts, deletes)
        with self._lock:
            if parent != self._head:
                raise ConflictError(f"the store is at {self._head}, not at {parent} any more")
            files = dict(self._history[parent])
            for path in deletes:
                if files.pop(path, None) is None:
                    raise NotFoundError(f"{path} cannot be removed: it is not there at {parent}")
            rev = f"r{len(self._history)}"
            self._history[rev] = {**files, **puts}
            self._head = rev
            return rev

    def check_writable(self) -> None:
        """Memory can always be written."""

    def _at(self, rev: str) -> dict[str, bytes]:
        try:
            return self._history[rev]
        except KeyError:
            raise ConflictError(f"{rev!r} is no revision of this store") from None
