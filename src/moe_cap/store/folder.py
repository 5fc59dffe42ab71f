"""A store in a folder: plain files that people and git can read, changed by one process at a time, crash-safe.

The files are the truth. The hidden `.store` beside them holds the lock (`flock`, released by the kernel when a process
dies) and the journal of a commit in progress. A revision is a hash of the whole tree, so a file that somebody drops or
edits by hand makes a new revision like any commit. Not for network file systems on which `flock` does not exclude.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from moe_cap.errors import BusyError, ConflictError, NotFoundError, OutcomeUnknownError, StoreError
from moe_cap.store.base import blob_id, check_change, check_prefix
from moe_cap.store.journal import Journal
from moe_cap.store.tree import UNREADABLE, FolderTree, revision_of

REMEMBERED_REVISIONS = 32
LOCK_POLL_S = 0.002


class FolderStore:
    """A Store over a folder of this machine; created at the first commit, or at the first look whether one can be made.

    It keeps no history: at a revision that is not the newest any more, `list` answers from memory and `read` answers
    while the file is unchanged; otherwise both raise ConflictError.
    """

    heartbeat_s = 2.0
    parallel_reads = 1

    def __init__(
        self,
        root: Path | str,
        *,
        lock_timeout_s: float = 10.0,
        clock_ns: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.root = Path(root).absolute()
        self._lock_timeout_s = lock_timeout_s
        self._monotonic = monotonic
        self._sleep = sleep
        self._tree = FolderTree(self.root, clock_ns=clock_ns)
        self._journal = Journal(self.root)
        self._revisions: OrderedDict[str, dict[str, str]] = OrderedDict()
        self._threads = threading.Lock()

    def head(self) -> str:
        """Return the hash of the tree as it is now; completes a commit that a killed process left half done."""
        if not self.root.is_dir():
            return self._remember({})
        with self._locked():
            return self._remember(self._scan())

    def list(self, prefix: str, rev: str) -> dict[str, str]:
        """Return path to git blob id below `prefix` at `rev`."""
        check_prefix(prefix)
        return {path: content_id for path, content_id in self._at(rev).items() if path.startswith(prefix)}

    def read(self, path: str, rev: str) -> bytes:
        """Return the bytes of `path` at `rev`; the content is checked, so no lock is needed."""
        content_id = self._at(rev).get(path)
        if content_id is None:
            raise NotFoundError(f"{path} is not in {self.root} at this revision")
        if content_id == UNREADABLE:
            raise StoreError(f"{self.root / path} may not be read: look at its permissions")
        try:
            data = (self.root / path).read_bytes()
        except OSError as error:
            raise ConflictError(f"{path} is gone since {rev}") from error
        if blob_id(data) != content_id:
            raise ConflictError(f"{path} changed since {rev}")
        return data

    def commit(self, puts: Mapping[str, bytes], deletes: Sequence[str], parent: str, message: str) -> str:
        """Write and remove files in one step if the tree is still the one of `parent`."""
        check_change(puts, deletes)
        self._make()
        with self._locked():
            files = self._scan()
            if revision_of(files) != parent:
                raise ConflictError(f"{self.root} changed since {parent}")
            if missing := [path for path in deletes if path not in files]:
                raise NotFoundError(f"cannot be removed, not there: {', '.join(missing)}")
            self._refuse_collisions(puts)
            self._write(puts, deletes)
            for path in deletes:
                del files[path]
            return self._remember(files | {path: blob_id(data) for path, data in puts.items()})

    def check_writable(self) -> None:
        """Make the folder if there is none, ask the system for the right to write it, and read it as a commit does."""
        self._make()
        if not all(os.access(folder, os.W_OK | os.X_OK) for folder in (self.root, self.root / ".store")):
            raise StoreError(f"{self.root} cannot be written: look at its permissions")
        self.head()

    def _at(self, rev: str) -> dict[str, str]:
        if rev not in self._revisions and rev != self.head():
            raise ConflictError(f"{self.root} has moved on from {rev}")
        try:
            return self._revisions[rev]
        except KeyError:  # forgotten a moment ago, for newer ones of other threads
            raise ConflictError(f"{self.root} has moved on from {rev}") from None

    def _remember(self, files: dict[str, str]) -> str:
        rev = revision_of(files)
        with self._threads:
            self._revisions[rev] = files
            self._revisions.move_to_end(rev)
            while len(self._revisions) > REMEMBERED_REVISIONS:
                self._revisions.popitem(last=False)
        return rev

    def _scan(self) -> dict[str, str]:
        try:
            self._journal.replay()
        except OSError as error:
            raise StoreError(f"a commit that was cut short in {self.root} cannot be completed: {error}") from error
        return self._tree.scan()

    def _make(self) -> None:
        hidden = self.root / ".store"
        try:
            hidden.mkdir(parents=True, exist_ok=True)
            if not (hidden / ".gitignore").exists():
                (hidden / ".gitignore").write_text("*\n", encoding="utf-8")
        except OSError as error:
            raise StoreError(f"{self.root} cannot be written: {error}") from error

    def _refuse_collisions(self, puts: Mapping[str, bytes]) -> None:
        """Find now what would stop the journal after its change is decided."""
        for path in puts:
            target = self.root / path
            above = [folder for folder in target.parents if folder != self.root and folder.is_relative_to(self.root)]
            blocked = any(folder.is_symlink() or (folder.exists() and not folder.is_dir()) for folder in above)
            if blocked or target.is_dir():
                raise StoreError(f"{target}: a file, a folder or a link is in the way; move it")

    def _write(self, puts: Mapping[str, bytes], deletes: Sequence[str]) -> None:
        try:
            self._journal.record(puts, deletes)
        except OSError as error:
            raise StoreError(f"{self.root} cannot be written: {error}") from error
        try:
            self._journal.replay()
        except OSError as error:
            raise OutcomeUnknownError(f"decided, but not yet complete in {self.root}: {error}") from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the folder alone among all threads and processes that go through a FolderStore."""
        descriptor = _open_lock(self.root / ".store")
        if descriptor is None:
            yield
            return
        try:
            deadline = self._monotonic() + self._lock_timeout_s
            while not _try_lock(descriptor):
                if self._monotonic() > deadline:
                    raise BusyError(f"{self.root} is locked by another process", wait_s=1.0)
                self._sleep(LOCK_POLL_S)
            yield
        finally:
            os.close(descriptor)


def _open_lock(folder: Path) -> int | None:
    """Open the lock file; None in a folder that we may not write and no writer ever used, where nothing can move."""
    try:
        folder.mkdir(exist_ok=True)
        return os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:
        try:
            return os.open(folder / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{folder / 'lock'} cannot be opened: {error}") from error


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
