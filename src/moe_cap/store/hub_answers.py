"""What the Hub's refusals mean for a store: was something written, and when is it worth trying again?

The status codes are those of huggingface_hub's own tests and of other projects' reports; docs/queue.md lists them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus

import httpx2
from huggingface_hub.errors import (
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]  # public, but exported lazily

from moe_cap.errors import BusyError, ConflictError, OutcomeUnknownError, StoreAccessError, StoreError

LOCKED_WAIT_S = 1.0
"""Another commit is being made in the repository; that takes about a second."""
SILENT_WAIT_S = 5.0
"""The Hub did not answer, or answered with a server error."""
LIMITED_WAIT_S = 60.0
"""A rate limit that does not say when it ends."""
NOT_AS_DOCUMENTED = (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError)
"""What the client makes of a 200 that is not what it asked for: the page of a proxy, or of maintenance."""


@contextmanager
def asking(what: str) -> Iterator[None]:
    """Name the errors of calls that change nothing."""
    try:
        yield
    except RevisionNotFoundError as error:
        raise ConflictError(f"{what}: this revision is not (or not yet) known to the Hub") from error
    except RepositoryNotFoundError as error:
        raise StoreAccessError(f"{what}: no such repository, or this token may not see it") from error
    except HfHubHTTPError as error:
        raise _refusal(error, what) from error
    except OfflineModeIsEnabled as error:
        raise StoreError(f"{what}: HF_HUB_OFFLINE is set; unset it, or use a folder") from error
    except (httpx2.RequestError, RuntimeError) as error:  # RuntimeError: the client's word for a failed upload
        raise BusyError(f"{what}: the Hub did not answer ({error})", wait_s=SILENT_WAIT_S) from error
    except NOT_AS_DOCUMENTED as error:
        raise BusyError(f"{what}: this was no answer of the Hub ({error!r})", wait_s=SILENT_WAIT_S) from error


@contextmanager
def committing(what: str) -> Iterator[None]:
    """Name the errors of the one call that writes; the client sends it once and never repeats it."""
    try:
        yield
    except RemoteEntryNotFoundError as error:
        raise ConflictError(f"{what}: a file to remove is gone") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status == HTTPStatus.PRECONDITION_FAILED:
            raise ConflictError(f"{what}: the branch moved on") from error
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.REQUEST_TIMEOUT:
            raise OutcomeUnknownError(f"{what}: the Hub answered {status}") from error
        raise _refusal(error, what) from error
    except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
        raise BusyError(f"{what}: the Hub cannot be reached ({error})", wait_s=SILENT_WAIT_S) from error
    except (httpx2.RequestError, *NOT_AS_DOCUMENTED) as error:
        raise OutcomeUnknownError(f"{what}: the answer was lost ({error!r})") from error


def _refusal(error: HfHubHTTPError, what: str) -> StoreError:
    status = error.response.status_code
    said = error.server_message or str(error).strip()
    if status == HTTPStatus.CONFLICT:
        return BusyError(f"{what}: {said}", wait_s=LOCKED_WAIT_S)
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return BusyError(f"{what}: {said}", wait_s=_limited_for_s(error.response.headers))
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.REQUEST_TIMEOUT:
        return BusyError(f"{what}: the Hub answered {status}", wait_s=SILENT_WAIT_S)
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return StoreAccessError(f"{what}: {said}. Set HF_TOKEN to a token with write access to this repository")
    return StoreError(f"{what}: the Hub answered {status}: {said}")


def _limited_for_s(headers: Mapping[str, str]) -> float:
    """Return how long a 429 asks to wait, in seconds (RateLimit `t=`, else Retry-After)."""
    limit = parse_ratelimit_headers(headers)
    if limit is not None and limit.remaining == 0:
        return float(limit.reset_in_seconds)
    try:
        return float(headers.get("retry-after", LIMITED_WAIT_S))
    except ValueError:  # a date: not worth a parser
        return LIMITED_WAIT_S
