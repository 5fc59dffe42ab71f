"""The loop that changes records, against a store that refuses on cue."""

from collections.abc import Callable
from random import Random

import pytest

from moe_cap.errors import BusyError, ConflictError, OutcomeUnknownError, StoreAccessError, StoreError
from moe_cap.store import Change, MemoryStore, transact, view
from moe_cap.store.transact import PATIENCE_S


class Refusing(MemoryStore):
    """Raises what is planned for the next commits; `lost` answers are lost after the commit happened."""

    def __init__(self, *errors: StoreError, lost: bool = False) -> None:
        super().__init__()
        self.errors, self.lost, self.tries = list(errors), lost, 0

    def commit(self, *args: object, **kwargs: object) -> str:
        self.tries += 1
        if not self.errors:
            return super().commit(*args, **kwargs)  # type: ignore[arg-type]
        if self.lost:
            super().commit(*args, **kwargs)  # type: ignore[arg-type]
        raise self.errors.pop(0)


class Sleeper:
    def __init__(self) -> None:
        self.pauses_s: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.pauses_s.append(seconds)


@pytest.fixture
def sleep() -> Sleeper:
    return Sleeper()


def add_one(store: MemoryStore) -> Callable[[str], Change]:
    def plan(rev: str) -> Change:
        count = int(store.read("n", rev)) if "n" in store.list("", rev) else 0
        return Change({"n": str(count + 1).encode()}, [], "count")

    return plan


def run(store: MemoryStore, sleep: Sleeper, landed: Callable[[str], bool] = lambda _: False) -> str | None:
    return transact(store, add_one(store), landed, sleep=sleep, rng=Random(1))


def count(store: MemoryStore) -> bytes:
    return store.read("n", store.head())


def test_conflict_is_planned_again(sleep: Sleeper) -> None:
    store = Refusing(ConflictError("moved"), ConflictError("moved"))
    assert run(store, sleep) == store.head()
    assert (count(store), store.tries) == (b"1", 3)


def test_busy_store_is_given_the_time_it_asks_for(sleep: Sleeper) -> None:
    store = Refusing(BusyError("429", wait_s=7.0))
    run(store, sleep)
    assert 7.0 <= sleep.pauses_s[0] <= 8.0


def test_lost_answer_executes_once(sleep: Sleeper) -> None:
    store = Refusing(OutcomeUnknownError("500"), lost=True)
    rev = run(store, sleep, landed=lambda rev: store.list("", rev) != {})
    assert rev == store.head()
    assert (count(store), store.tries) == (b"1", 1)


def test_failed_attempt_with_unknown_outcome_is_repeated(sleep: Sleeper) -> None:
    store = Refusing(OutcomeUnknownError("502"))
    run(store, sleep, landed=lambda rev: store.list("", rev) != {})
    assert (count(store), store.tries) == (b"1", 2)


def test_landed_is_not_asked_without_an_unknown_outcome(sleep: Sleeper) -> None:
    store = Refusing(ConflictError("moved"))

    def never(_: str) -> bool:
        raise AssertionError("asked")

    run(store, sleep, landed=never)


def test_nothing_to_do_writes_nothing(sleep: Sleeper) -> None:
    store = Refusing()
    assert transact(store, lambda _: None, lambda _: False, sleep=sleep, rng=Random(1)) is None
    assert store.tries == 0


def test_own_error_of_the_plan_ends_it(sleep: Sleeper) -> None:
    def plan(_: str) -> Change:
        raise LookupError("mine")

    with pytest.raises(LookupError):
        transact(Refusing(), plan, lambda _: False, sleep=sleep, rng=Random(1))


def test_pauses_grow_and_stay_bounded(sleep: Sleeper) -> None:
    store = Refusing(*[ConflictError("moved")] * 20)
    with pytest.raises(ConflictError):
        run(store, sleep)
    assert store.tries == 20
    assert max(sleep.pauses_s[:4]) < 0.5
    assert max(sleep.pauses_s) <= 10.0


def test_store_that_stays_closed_is_told_in_time(sleep: Sleeper) -> None:
    store = Refusing(*[BusyError("429", wait_s=50.0)] * 20)
    with pytest.raises(BusyError) as busy:
        run(store, sleep)
    assert busy.value.wait_s == 50.0
    assert sum(sleep.pauses_s) <= PATIENCE_S


def test_hour_long_wait_is_left_to_the_caller(sleep: Sleeper) -> None:
    with pytest.raises(BusyError):
        run(Refusing(BusyError("429", wait_s=3600.0)), sleep)
    assert sleep.pauses_s == []


def test_unknown_outcome_outlives_a_busy_end(sleep: Sleeper) -> None:
    store = Refusing(OutcomeUnknownError("500"), BusyError("429", wait_s=3600.0))
    with pytest.raises(OutcomeUnknownError):
        run(store, sleep)


@pytest.mark.parametrize("blind", ["head", "landed"])
def test_unknown_outcome_outlives_a_store_that_cannot_be_looked_at(blind: str, sleep: Sleeper) -> None:
    store = Refusing(OutcomeUnknownError("500"), lost=True)

    def refuse(*_: object) -> bool:
        raise StoreAccessError("401")

    head = store.head
    if blind == "head":
        store.head = lambda: str(refuse()) if store.tries else head()  # type: ignore[method-assign]
    with pytest.raises(OutcomeUnknownError):
        run(store, sleep, landed=refuse if blind == "landed" else lambda _: True)
    assert store.tries == 1


def test_lookup_that_fails_for_a_while_is_repeated(sleep: Sleeper) -> None:
    store, looks = Refusing(OutcomeUnknownError("500"), lost=True), []

    def landed(_: str) -> bool:
        looks.append(1)
        if len(looks) == 1:
            raise StoreError("disk full")
        return True

    assert run(store, sleep, landed=landed) == store.head()
    assert (count(store), store.tries) == (b"1", 1)


def test_view_looks_again_when_the_store_moved_on() -> None:
    store, looks = MemoryStore(), []

    def look(rev: str) -> int:
        looks.append(rev)
        if len(looks) < 3:
            raise ConflictError("moved")
        return len(looks)

    assert view(store, look) == 3


def test_view_gives_up_after_its_attempts() -> None:
    def look(_: str) -> None:
        raise ConflictError("moved")

    with pytest.raises(ConflictError):
        view(MemoryStore(), look, attempts=3)
