"""The waist of the house: a tree of small files that changes by compare-and-swap.

A store holds one tree of files and a *head*, the revision that the tree is at. Readers pick a revision and read at it;
writers plan on a revision and commit against it. A commit is whole or absent, and it is refused when the store moved on
in between. Everything that must survive (the queue, the results) is written through this interface and nothing else.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from moe_cap.errors import BusyError, ConflictError, InvalidInputError, StoreError

_COMPONENT = re.compile(r"(?!\.)[^/\\\0]{1,200}")


class Store(Protocol):
    """Where records live. Safe to share between threads; other processes and machines may write at the same time."""

    @property
    def heartbeat_s(self) -> float:
        """Shortest pause between two renewals of one lease that this store bears, in seconds."""

    @property
    def parallel_reads(self) -> int:
        """How many reads at once pay off: 1 where a read is a disk access, more where it is a round trip."""

    def head(self) -> str:
        """Return the newest revision; never older than what this object committed or returned before.

        Raises:
            BusyError: the store does not answer now.
        """

    def list(self, prefix: str, rev: str) -> dict[str, str]:
        """Return the files below `prefix` at `rev`: path to content id. Equal ids mean equal bytes.

        Args:
            prefix: `""` for all, or a folder with its closing slash (`"pending/"`).
            rev: what `head` or `commit` returned.

        Raises:
            ConflictError: this store keeps no history and has moved on from `rev`.
            BusyError: the store does not answer now.
        """

    def read(self, path: str, rev: str) -> bytes:
        """Return the bytes of `path` exactly as they are at `rev`.

        Raises:
            NotFoundError: there is no such file at `rev`.
            ConflictError: this store keeps no history and the file changed after `rev`.
            BusyError: the store does not answer now.
        """

    def commit(self, puts: Mapping[str, bytes], deletes: Sequence[str], parent: str, message: str) -> str:
        """Write `puts` and remove `deletes` in one step if the head is still `parent`; return the new revision.

        Content that is the same already may give no new revision: two writers of the same bytes can both succeed. What
        must have one winner carries a nonce, or moves a file.

        Raises:
            ConflictError: the head is not `parent` any more. Nothing was written.
            NotFoundError: a path of `deletes` is not there at `parent`. Nothing was written.
            BusyError: refused for now. Nothing was written.
            OutcomeUnknownError: it may or may not have happened; read again before deciding.
            InvalidInputError: an empty change, a bad path, or a path that is both written and removed.
        """

    def check_writable(self) -> None:
        """Find out whether a commit would be taken, without one: for whoever works for hours before the first.

        Raises:
            BusyError: the store does not answer now.
            StoreError: this store, this user or this token may not be written to; the message says what to do.
        """


def blob_id(data: bytes) -> str:
    """Return git's object id of `data` as a blob: sha1 over "blob", its size, NUL and the bytes, 40 hex digits.

    The Hub names files by it, so a folder and a dataset repository give the same content the same id.
    """
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def check_prefix(prefix: str) -> None:
    """Refuse a prefix that is neither empty nor a folder with its closing slash."""
    if prefix and not prefix.endswith("/"):
        raise InvalidInputError(f"prefix {prefix!r}: give '' or a folder with its closing slash")


def check_change(puts: Mapping[str, bytes], deletes: Sequence[str]) -> None:
    """Refuse a change that no store could write: empty, ambiguous, or with a path that leaves the tree or is hidden."""
    if not puts and not deletes:
        raise InvalidInputError("an empty change: nothing to write, nothing to remove")
    for path in (*puts, *deletes):
        if not all(_COMPONENT.fullmatch(part) for part in path.split("/")):
            raise InvalidInputError(f"path {path!r}: give visible names joined by '/', without '..'")
    if twice := {path for path in deletes if path in puts or deletes.count(path) > 1}:
        raise InvalidInputError(f"named twice in one change: {', '.join(sorted(twice))}")
    folders = {path[:at] for path in puts for at, letter in enumerate(path) if letter == "/"}
    if both := folders & puts.keys():
        raise InvalidInputError(f"both a file and a folder: {', '.join(sorted(both))}")


def read_many(store: Store, paths: Sequence[str], rev: str) -> Iterator[tuple[str, bytes | StoreError]]:
    """Read `paths` at `rev` in order, as many at once as the store likes.

    A file that cannot be read gives its error in its place, so that one does not hide the others.

    Raises:
        ConflictError, BusyError: as `Store.read`; these concern all.
    """

    def read(path: str) -> bytes | StoreError:
        try:
            return store.read(path, rev)
        except (ConflictError, BusyError):
            raise
        except StoreError as error:
            return error

    if store.parallel_reads == 1:
        yield from ((path, read(path)) for path in paths)
        return
    with ThreadPoolExecutor(store.parallel_reads, thread_name_prefix="store-read") as pool:
        yield from zip(paths, pool.map(read, paths), strict=True)
