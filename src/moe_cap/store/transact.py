"""Compare-and-swap until it settles: the only loop through which records change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from moe_cap.errors import BusyError, ConflictError, OutcomeUnknownError, StoreError
from moe_cap.store.base import Store

T = TypeVar("T")

BACKOFF_BASE_S = 0.05
BACKOFF_CAP_S = 10.0
PATIENCE_S = 120.0
"""Longest total sleep of one transaction: a caller with a heartbeat to keep must hear about a closed store in time."""


@dataclass(frozen=True, slots=True)
class Change:
    """One commit to be: what to write, what to remove, and a line that says why."""

    puts: Mapping[str, bytes]
    deletes: Sequence[str]
    message: str


def transact(
    store: Store,
    plan: Callable[[str], Change | None],
    landed: Callable[[str], bool],
    *,
    sleep: Callable[[float], None],
    rng: Random,
    attempts: int = 20,
) -> str | None:
    """Commit what `plan` says, planning again whenever the store moved on.

    Args:
        store: the store to change.
        plan: decides on the data of exactly the given revision; None means that nothing is to be done. What it raises
            besides ConflictError and BusyError ends the transaction.
        landed: after an attempt whose outcome is unknown, says whether that attempt is in effect at this revision.
        sleep: waits that many seconds.
        rng: spreads the pauses, so that two writers do not meet again.
        attempts: planned commits before giving up.

    Returns:
        A revision at which the change is in effect, or None if `plan` had nothing to do.

    Raises:
        OutcomeUnknownError: an attempt may have happened and could not be looked up afterwards.
        BusyError: the store stayed closed, or asks for more patience than `PATIENCE_S` in total.
        ConflictError: others were faster `attempts` times.
    """
    unsure: OutcomeUnknownError | None = None
    last: StoreError = ConflictError("no attempt was made")
    slept_s = 0.0
    for attempt in range(attempts):
        asked_s = 0.0
        try:
            rev, has_landed = _look(store, landed, unsure)
            if has_landed:
                return rev
            if (change := plan(rev)) is None:
                return None
            return store.commit(change.puts, change.deletes, rev, change.message)
        except ConflictError as error:
            last = error
        except BusyError as error:
            last, asked_s = error, error.wait_s
        except OutcomeUnknownError as error:
            last = unsure = error
        pause_s = asked_s + rng.uniform(0, min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2**attempt))
        slept_s += pause_s
        if slept_s > PATIENCE_S:
            break
        sleep(pause_s)
    raise unsure or last


def _look(store: Store, landed: Callable[[str], bool], unsure: OutcomeUnknownError | None) -> tuple[str, bool]:
    """The head, and whether the unknown attempt is in effect there; unknown still if the store cannot tell."""
    try:
        rev = store.head()
        return rev, unsure is not None and landed(rev)
    except (ConflictError, BusyError):
        raise
    except StoreError as error:
        if unsure is None:
            raise
        raise unsure from error


def view(store: Store, look: Callable[[str], T], *, attempts: int = 20) -> T:
    """Return `look(head)`, looking again when the store moved on meanwhile: the reading sister of `transact`.

    Raises:
        ConflictError: the store moved on in each of `attempts` looks.
        BusyError: the store does not answer now.
    """
    for _ in range(attempts - 1):
        try:
            return look(store.head())
        except ConflictError:
            continue
    return look(store.head())
