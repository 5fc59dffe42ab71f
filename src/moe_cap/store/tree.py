"""What lies in a folder: every visible file with the git blob id of its content, at the price of a stat per file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from moe_cap.store.base import blob_id

UNREADABLE = "unreadable"
"""Content id of a file that may not be read; the listing goes on without its content."""

RACY_NS = 2_000_000_000
"""A file changed this recently may change again without its time stamps moving: FAT counts in 2 s steps."""


@dataclass(frozen=True, slots=True)
class _Seen:
    signature: tuple[int, int, int, int]
    changed_ns: int
    content_id: str


class FolderTree:
    """Scans a folder; content is read again only where size, times or inode say that it may have changed.

    Files that people drop, edit or check out by hand are seen like any other. Names that begin with a dot and symbolic
    links are not part of the tree. Git keeps its index the same way ("racily clean entries").
    """

    def __init__(self, root: Path, *, clock_ns: Callable[[], int]) -> None:
        self._root = root
        self._clock_ns = clock_ns
        self._seen: dict[str, _Seen] = {}

    def scan(self) -> dict[str, str]:
        """Return path to content id of all files now. The caller keeps writers of this package out meanwhile."""
        settled_ns = self._clock_ns() - RACY_NS
        found: dict[str, str] = {}
        seen: dict[str, _Seen] = {}
        for path, entry in _walk(self._root):
            try:
                known = self._look(path, entry)
            except FileNotFoundError:
                continue  # a person removed it between the listing and the look
            found[path] = known.content_id
            if known.changed_ns < settled_ns:
                seen[path] = known
        self._seen = seen
        return found

    def _look(self, path: str, entry: os.DirEntry[str]) -> _Seen:
        stat = entry.stat(follow_symlinks=False)
        signature = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
        known = self._seen.get(path)
        if known is not None and known.signature == signature:
            return known
        changed_ns = max(stat.st_mtime_ns, stat.st_ctime_ns)
        try:
            return _Seen(signature, changed_ns, blob_id(Path(entry.path).read_bytes()))
        except PermissionError:
            return _Seen(signature, changed_ns, UNREADABLE)


def revision_of(files: Mapping[str, str]) -> str:
    """Return the revision that names exactly this content: equal trees have equal revisions, whoever wrote them."""
    lines = "".join(f"{content_id} {path}\n" for path, content_id in sorted(files.items()))
    return hashlib.sha1(lines.encode(errors="surrogateescape"), usedforsecurity=False).hexdigest()


def _walk(root: Path) -> list[tuple[str, os.DirEntry[str]]]:
    found: list[tuple[str, os.DirEntry[str]]] = []
    folders = [(str(root), "")]
    while folders:
        folder, prefix = folders.pop()
        try:
            entries = list(os.scandir(folder))
        except (FileNotFoundError, PermissionError):
            continue
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                continue
            if entry.is_file(follow_symlinks=False):
                found.append((prefix + name, entry))
            elif entry.is_dir(follow_symlinks=False):
                folders.append((entry.path, f"{prefix}{name}/"))
    return found
