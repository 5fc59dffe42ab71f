"""Answers that are made once and sent many times: compressed beforehand, revalidated by ETag."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass

from fastapi import Request, Response


@dataclass(frozen=True, slots=True)
class Encoded:
    """A body with its compressed form and its tag."""

    body: bytes
    compressed: bytes
    etag: str
    media_type: str


def encode(body: bytes, media_type: str) -> Encoded:
    """Compress and tag a body."""
    tag = hashlib.sha256(body).hexdigest()[:20]
    return Encoded(body, gzip.compress(body, 6, mtime=0), f'"{tag}"', media_type)


def answer(request: Request, encoded: Encoded, *, cache: str = "no-cache", filename: str | None = None) -> Response:
    """304 for who has it, gzip for who takes it; `filename` makes it a download."""
    headers = {"ETag": encoded.etag, "Cache-Control": cache, "Vary": "Accept-Encoding"}
    if filename is not None:
        headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    if encoded.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"] = "gzip"
        return Response(encoded.compressed, headers=headers, media_type=encoded.media_type)
    return Response(encoded.body, headers=headers, media_type=encoded.media_type)
