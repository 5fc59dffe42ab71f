"""What files hold, as one hash; a checkpoint of tens of gigabytes is read once in the life of a process."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

THREADS = 8
"""Files that are read at once: `hashlib` lets go of the interpreter, and one thread hashes slower than a disk reads."""
RACY_NS = 2_000_000_000
"""A file changed so shortly ago may change again within one tick of the file system's clock, unseen by its times."""


def hash_files(paths: Sequence[Path]) -> str:
    """Sha256 over names and contents, in order; 64 hex digits."""
    digest = hashlib.sha256()
    with ThreadPoolExecutor(THREADS, thread_name_prefix="hash") as pool:
        for path, content in zip(paths, pool.map(_content, paths), strict=True):
            digest.update(path.name.encode() + b"\0" + content)
    return digest.hexdigest()


def _content(path: Path) -> bytes:
    state = path.stat()
    if time.time_ns() - state.st_ctime_ns < RACY_NS:
        return _read(path)
    return _known(path.resolve(), state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns)


@lru_cache(maxsize=1024)
def _known(path: Path, *_state: int) -> bytes:
    return _read(path)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
