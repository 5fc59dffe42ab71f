"""A holder whose write vanished must not take somebody else's verdict on its lease for its own."""

from collections.abc import Callable

import pytest

from moe_cap.errors import LeaseLostError, OutcomeUnknownError
from moe_cap.queue import Queue, Request, State
from moe_cap.store import MemoryStore

LEASE_S = 10.0
ACTS: dict[str, Callable[[Queue, Request], Request]] = {
    "finish": lambda queue, mine: queue.finish(mine, ["mine"]),
    "fail": lambda queue, mine: queue.fail(mine, "broken", retry=True),
    "release": lambda queue, mine: queue.release(mine),
}


class Interrupted(MemoryStore):
    """Does `meanwhile` instead of, or after, the next commit, and then says that its outcome is not known."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], object] | None = None
        self.loses = True

    def commit(self, *args: object, **kwargs: object) -> str:
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is None or not self.loses:
            rev = super().commit(*args, **kwargs)  # type: ignore[arg-type]
        if meanwhile is None:
            return rev
        meanwhile()
        raise OutcomeUnknownError("502")


@pytest.fixture
def store() -> Interrupted:
    return Interrupted()


def make_queue(store: Interrupted, clock: Callable[[], float]) -> Queue:
    return Queue(store, lease_s=LEASE_S, clock=clock, sleep=lambda _: None)


def claim(store: Interrupted) -> tuple[Queue, Queue, Request]:
    queue, later = make_queue(store, lambda: 1000.0), make_queue(store, lambda: 1000.0 + LEASE_S)
    queue.submit({}, request_id="id-a")
    mine = queue.claim("w")
    assert mine is not None
    return queue, later, mine


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("rival", ["cancels", "reaps", "takes"])
def test_ending_by_somebody_else_is_a_lost_lease(store: Interrupted, act: str, rival: str) -> None:
    queue, later, mine = claim(store)
    store.meanwhile = {
        "cancels": lambda: later.cancel("id-a"),
        "reaps": lambda: later.claim("picky", accepts=lambda _: False),
        "takes": lambda: later.claim("alive"),
    }[rival]
    with pytest.raises(LeaseLostError):
        ACTS[act](queue, mine)
    wanted = {"cancels": State.CANCELLED, "reaps": State.PENDING, "takes": State.RUNNING}[rival]
    assert queue.get("id-a").state is wanted


@pytest.mark.parametrize("act", ACTS)
def test_own_ending_is_recognised_whatever_came_after_it(store: Interrupted, act: str) -> None:
    queue, later, mine = claim(store)
    store.loses = False
    store.meanwhile = lambda: later.claim("next")
    ended = ACTS[act](queue, mine)
    assert len(ended.history) == 1
    assert ended.state is (State.FINISHED if act == "finish" else State.RUNNING)


def test_finish_with_other_results_is_a_lost_lease(store: Interrupted) -> None:
    queue, _, mine = claim(store)
    store.meanwhile = lambda: queue.finish(mine, ["of another call"])
    with pytest.raises(LeaseLostError):
        queue.finish(mine, ["mine"])
