import os
import threading
from time import monotonic_ns

from moe_cap.measure.load.loop import READABLE, Loop


def test_deadlines_fire_in_order_and_never_early() -> None:
    loop, fired = Loop(), []
    start = monotonic_ns()
    for delay_ms in (3, 1, 2):
        due = start + delay_ms * 1_000_000
        loop.call_at(due, lambda due=due: fired.append((due, monotonic_ns())))  # type: ignore[misc]
    loop.call_at(start + 4_000_000, loop.stop)
    loop.run()
    assert [due - start for due, _ in fired] == [1_000_000, 2_000_000, 3_000_000]
    assert all(at >= due for due, at in fired)
    loop.close()


def test_a_ready_descriptor_is_served_and_a_forgotten_one_is_not() -> None:
    loop = Loop()
    first, second = os.pipe(), os.pipe()
    served: list[str] = []

    def serve_first() -> None:
        served.append("first")
        os.read(first[0], 1)
        loop.forget(second[0])

    loop.watch(first[0], READABLE, serve_first)
    loop.watch(second[0], READABLE, lambda: served.append("second"))
    os.write(first[1], b"x")
    loop.call_at(monotonic_ns() + 2_000_000, lambda: os.write(second[1], b"x"))
    loop.call_at(monotonic_ns() + 5_000_000, loop.stop)
    loop.run()
    assert served == ["first"]
    loop.close()
    for end in (*first, *second):
        os.close(end)


def test_idle_work_gives_way_to_a_deadline() -> None:
    slices = 0

    def work() -> bool:
        nonlocal slices
        slices += 1
        return True

    loop = Loop(work)
    loop.call_at(monotonic_ns() + 2_000_000, loop.stop)
    loop.run()
    assert slices > 1
    assert loop.idle_ns > 0
    assert loop.waited_ns == 0
    loop.close()


def test_stop_from_another_thread_ends_a_wait() -> None:
    loop = Loop()
    threading.Timer(0.02, loop.stop).start()
    loop.run()
    assert loop.waited_ns > 0
    loop.close()
