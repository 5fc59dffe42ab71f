"""Several files change in one step, whatever dies in the middle.

A commit is: write down what will be done, then do what is written down. Recovery is the second half alone, so the path
that a crash takes is the path that every commit takes. The change is decided at one moment, the rename that puts
`journal.json` in its place; before it nothing happened, after it everything will. All calls need the store's lock.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from moe_cap.errors import OutcomeUnknownError, StoreError


class Journal:
    """Write-ahead journal of a folder, kept in its hidden `.store`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root / ".store"
        self._path = self._folder / "journal.json"
        self._part = self._folder / "part"

    def record(self, puts: Mapping[str, bytes], deletes: Sequence[str]) -> None:
        """Decide a change: when this returns it will happen, when it raises OSError it will not.

        Raises:
            OutcomeUnknownError: it is decided, but may be forgotten again if power fails now.
        """
        texts = {path: base64.b64encode(data).decode("ascii") for path, data in puts.items()}
        self._place(json.dumps({"puts": texts, "deletes": list(deletes)}).encode(), self._path)
        try:
            _flush_folders([self._folder])
        except OSError as error:
            raise OutcomeUnknownError(f"decided, but {self._folder} could not be flushed: {error}") from error

    def replay(self) -> None:
        """Do what was decided and is not known to be done; nothing if there is no journal. Safe to repeat.

        Raises:
            StoreError: the journal cannot be understood.
            OSError: the change could not be completed now; it stays decided.
        """
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            return
        try:
            change = json.loads(text)
            puts = {path: base64.b64decode(data) for path, data in change["puts"].items()}
            deletes = list(change["deletes"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(f"{self._path} is damaged; look at it, then remove it: {error}") from error
        self._apply(puts, deletes)
        self._path.unlink()

    def _apply(self, puts: Mapping[str, bytes], deletes: Sequence[str]) -> None:
        for path, data in puts.items():
            target = self._root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            self._place(data, target)
        _flush_folders(self._folders_of(puts))
        for path in deletes:  # after the puts: who looks without the lock sees a moved file twice, never not at all
            (self._root / path).unlink(missing_ok=True)
        _flush_folders(self._folders_of(deletes))
        for path in deletes:
            self._prune((self._root / path).parent)

    def _place(self, data: bytes, target: Path) -> None:
        with self._part.open("wb") as part:
            part.write(data)
            part.flush()
            os.fsync(part.fileno())
        self._part.replace(target)

    def _folders_of(self, paths: Iterable[str]) -> set[Path]:
        ends = {(self._root / path).parent for path in paths}
        return {folder for end in ends for folder in (end, *end.parents) if folder.is_relative_to(self._root)}

    def _prune(self, folder: Path) -> None:
        while folder != self._root:
            try:
                folder.rmdir()
            except OSError:  # not empty, or gone
                return
            folder = folder.parent


def _flush_folders(folders: Iterable[Path]) -> None:
    for folder in folders:
        try:
            descriptor = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
