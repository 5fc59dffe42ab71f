import socket
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_cap.measure.load import stamps


class Stub:
    """A socket that has `data`, stamped `age_ns` ago on the realtime clock; None is not stamped."""

    def __init__(self, data: bytes, age_ns: int | None) -> None:
        self._data = data
        self._age_ns = age_ns

    def recvmsg(self, size: int, space: int) -> tuple[bytes, list[tuple[int, int, bytes]], int, None]:
        if self._age_ns is None:
            return self._data, [], 0, None
        stamp = stamps.STAMP.pack(*divmod(time.time_ns() - self._age_ns, 1_000_000_000))
        return self._data, [(socket.SOL_SOCKET, stamps.SO_TIMESTAMPNS, stamp)], 0, None


def received(age_ns: int | None) -> tuple[int, int | None, int, int]:
    before_ns = time.monotonic_ns()
    _, arrived_ns, told_age_ns = stamps.receive(Stub(b"x", age_ns))  # type: ignore[arg-type]
    return arrived_ns, told_age_ns, before_ns, time.monotonic_ns()


@given(st.integers(0, 10_000_000_000))
def test_a_late_read_is_dated_back_by_its_age(age_ns: int) -> None:
    arrived_ns, told_age_ns, before_ns, after_ns = received(age_ns)
    assert told_age_ns is not None
    assert told_age_ns >= age_ns
    assert before_ns - age_ns - stamps.LONGEST_PAIR_NS <= arrived_ns <= after_ns - age_ns + stamps.LONGEST_PAIR_NS


@pytest.mark.parametrize("age_ns", [None, -5_000_000_000, 2 * stamps.LONGEST_AGE_NS])
def test_without_a_believable_stamp_the_time_is_now(age_ns: int | None) -> None:
    arrived_ns, told_age_ns, before_ns, after_ns = received(age_ns)
    assert told_age_ns is None
    assert before_ns <= arrived_ns <= after_ns


def test_the_kernel_stamps_what_arrives_and_not_what_is_read() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as near,
        listener.accept()[0] as far,
    ):
        stamps.ask_for_stamps(near)
        far.sendall(b"x")
        sent_ns = time.monotonic_ns()
        time.sleep(0.05)
        data, arrived_ns, age_ns = stamps.receive(near)
    assert data == b"x"
    assert age_ns is not None
    assert age_ns > 40_000_000
    assert arrived_ns < sent_ns + stamps.LONGEST_PAIR_NS
