"""Content once fetched from afar is kept on disk under its content id and never fetched again."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from moe_cap.store.base import blob_id

SHA256_DIGITS = 64


def has_content_id(data: bytes, content_id: str) -> bool:
    """Whether `data` is what `content_id` names: a git blob id, or the sha256 by which the Hub names large files."""
    if len(content_id) == SHA256_DIGITS:
        return hashlib.sha256(data).hexdigest() == content_id
    return blob_id(data) == content_id


class BlobCache:
    """A folder of blobs, shared by all processes of a user; it may be deleted at any time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, content_id: str) -> bytes | None:
        """Return the bytes, or None if they are not here or not whole."""
        try:
            data = self._path(content_id).read_bytes()
        except OSError:
            return None
        return data if has_content_id(data, content_id) else None

    def put(self, content_id: str, data: bytes) -> None:
        """Keep `data`; seen by other processes whole or not at all."""
        path = self._path(content_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, part = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(part).replace(path)

    def _path(self, content_id: str) -> Path:
        return self._folder / content_id[:2] / content_id
