"""One request of the queue: its nouns, the bytes it is stored as, and the path it lies at.

The folder is the state: `pending/3f/3fa85c.json` is pending. Moving a file to another state folder by hand is a valid
way to change its state. docs/queue.md describes the record for people.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from pydantic import ConfigDict, TypeAdapter, ValidationError

from moe_cap.errors import InvalidInputError, RecordError

SCHEMA_VERSION = 1
_ID = re.compile(r"[0-9a-z][0-9a-z-]{3,63}")
_PATH = re.compile(r"(?P<state>[a-z]+)/(?P<first>[0-9a-z][0-9a-z-])/(?P<id>(?P=first)[0-9a-z-]{2,62})\.json")


class State(StrEnum):
    """Where a request is; the name of its folder."""

    PENDING = "pending"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


STATES = {state.value: state for state in State}


class Outcome(StrEnum):
    """How one attempt ended."""

    FINISHED = "finished"
    FAILED = "failed"
    EXPIRED = "expired"
    RELEASED = "released"
    CANCELLED = "cancelled"


_strict = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class Progress:
    """What a worker tells about the request it works on.

    Attributes:
        stage: a word for people, e.g. `timing`.
        fraction: of the whole, 0..1; None if unknown.
        eta_s: seconds to the end; None if unknown.
        log_tail: last lines of the log, oldest first.
    """

    __pydantic_config__ = _strict

    stage: str
    fraction: float | None = None
    eta_s: float | None = None
    log_tail: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Lease:
    """A worker's right to a request until `expires_at`; whoever holds `id` may write its record.

    Attributes:
        id: fresh for every claim; the fence against a worker that lost the request and does not know.
        worker: name of the holder.
        claimed_at, expires_at: seconds since 1970.
        beat: fresh for every write of the record.
        progress: last word of the holder.
    """

    __pydantic_config__ = _strict

    id: str
    worker: str
    claimed_at: float
    expires_at: float
    beat: str
    progress: Progress | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One claim that is over.

    Attributes:
        lease_id, worker, claimed_at: of the lease it ran under.
        ended_at: seconds since 1970.
        outcome: how it ended.
        reason: why, for people; None where the outcome says it all.
    """

    __pydantic_config__ = _strict

    lease_id: str
    worker: str
    claimed_at: float
    ended_at: float
    outcome: Outcome
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A submission on its way through the queue.

    Attributes:
        id: names the work, so that the same submission is the same request.
        state: where it is.
        submission: the JSON body as it was submitted.
        submitted_at: seconds since 1970; the oldest pending request is next.
        ticket: fresh for every call of submit; tells apart who made the record.
        attempts: claims since it was submitted that were not released.
        lease: present exactly while it runs.
        reason: why it failed, for people.
        result_ids: what came out of it.
        ended_at: seconds since 1970 when it reached a final state.
        history: all attempts, also those before it was submitted again.
    """

    __pydantic_config__ = _strict

    id: str
    state: State
    submission: Mapping[str, object]
    submitted_at: float
    ticket: str
    attempts: int = 0
    lease: Lease | None = None
    reason: str | None = None
    result_ids: tuple[str, ...] = ()
    ended_at: float | None = None
    history: tuple[Attempt, ...] = ()

    @property
    def path(self) -> str:
        """Where its record lies in the store."""
        return f"{self.state}/{self.id[:2]}/{self.id}.json"


_adapter = TypeAdapter(Request)


def check_id(request_id: str) -> None:
    """Refuse an id that must not become a file name: only lower-case letters, digits and '-', 4 to 64 of them."""
    if not _ID.fullmatch(request_id):
        raise InvalidInputError(f"request id {request_id!r}: give 4 to 64 lower-case letters, digits or '-'")


def parse_path(path: str) -> tuple[State, str]:
    """Return the state and the id that a record's path stands for.

    Raises:
        RecordError: it is not where a record lies.
    """
    if (found := _PATH.fullmatch(path)) and found["state"] in STATES:
        return STATES[found["state"]], found["id"]
    raise RecordError(f"{path}: a request lies at <state>/<first two of its id>/<id>.json", path=path)


def parse_request(data: bytes, path: str) -> Request:
    """Turn the bytes at `path` into a request; a lease outside of `running/` is void.

    Raises:
        RecordError: not a record of this version, or one that belongs elsewhere.
    """
    state, request_id = parse_path(path)
    try:
        record = json.loads(data)
        version = record.pop("schema_version")
        if version != SCHEMA_VERSION:
            raise RecordError(f"{path}: schema version {version!r}, this program reads {SCHEMA_VERSION}", path=path)
        request = _adapter.validate_json(json.dumps({**record, "state": state}))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise RecordError(f"{path}: {where}: {first['msg']}", path=path) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{path}: not the JSON of a request ({error})", path=path) from error
    if request.id != request_id:
        raise RecordError(f"{path}: holds the request {request.id}", path=path)
    if state is State.RUNNING and request.lease is None:
        raise RecordError(f"{path}: runs without a lease; move it to pending/ to have it evaluated", path=path)
    return request if state is State.RUNNING else replace(request, lease=None)


def request_bytes(request: Request) -> bytes:
    """Return the record as stored: JSON for people and programs; the state is in the path alone."""
    record = _adapter.dump_python(request, mode="json")
    del record["state"]
    text = json.dumps({"schema_version": SCHEMA_VERSION, **record}, indent=1, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()
