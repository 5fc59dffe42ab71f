"""A store in front of another one that fails as networks do, by chance."""

from collections.abc import Mapping, Sequence
from random import Random

from moe_cap.errors import BusyError, ConflictError, OutcomeUnknownError
from moe_cap.store import Store


class FaultyStore:
    """Half of all commits go wrong: refused, lost before, or lost after they happened."""

    def __init__(self, store: Store, rng: Random) -> None:
        self._store, self._rng = store, rng
        self.heartbeat_s, self.parallel_reads = store.heartbeat_s, store.parallel_reads
        self.head, self.list, self.read = store.head, store.list, store.read
        self.check_writable = store.check_writable
        self.faults: list[str] = []

    def commit(self, puts: Mapping[str, bytes], deletes: Sequence[str], parent: str, message: str) -> str:
        fault = self._rng.choice(["conflict", "busy", "lost before", "lost after", *["none"] * 4])
        self.faults.append(fault)
        if fault == "conflict":
            raise ConflictError("412")
        if fault == "busy":
            raise BusyError("409", wait_s=0.0)
        if fault == "lost before":
            raise OutcomeUnknownError("502")
        rev = self._store.commit(puts, deletes, parent, message)
        if fault == "lost after":
            raise OutcomeUnknownError("500")
        return rev
