"""Arrival times from the kernel: as the segment came in, however late this process gets to read it."""

from __future__ import annotations

import socket
import struct
from time import monotonic_ns, time_ns

READ_BYTES = 65_536
SO_TIMESTAMPNS = 35  # asm-generic/socket.h; the socket module does not name it
STAMP = struct.Struct("@qq")  # struct timespec: seconds, nanoseconds of CLOCK_REALTIME
STAMP_SPACE = socket.CMSG_SPACE(STAMP.size)
LONGEST_AGE_NS = 60_000_000_000
"""A stamp further away than this tells of a clock that was set, not of a late read."""

LONGEST_PAIR_NS = 20_000
"""Two clocks read further apart than this were read with a pause between them: read again. It bounds the error."""


def ask_for_stamps(stream: socket.socket) -> None:
    """Have the kernel stamp what arrives on `stream`."""
    stream.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)


def receive(stream: socket.socket) -> tuple[bytes, int, int | None]:
    """The next bytes, when the kernel had the last of them, and how long ago that was.

    The time is of `time.monotonic_ns`. A stamp is of the realtime clock: its age is taken the moment it is read, which
    carries it over to the monotonic clock whatever the two have done before. Without a stamp the time is now and the
    age None.

    Raises:
        OSError: as `socket.recvmsg`, BlockingIOError among them.
    """
    data, ancillary, _, _ = stream.recvmsg(READ_BYTES, STAMP_SPACE)
    before_ns = monotonic_ns()
    if not ancillary:
        return data, before_ns, None
    realtime_ns, now_ns = time_ns(), monotonic_ns()
    while now_ns - before_ns > LONGEST_PAIR_NS:
        before_ns, realtime_ns, now_ns = monotonic_ns(), time_ns(), monotonic_ns()
    read_ns = (before_ns + now_ns) // 2
    seconds, nanoseconds = STAMP.unpack(ancillary[0][2])
    age_ns = realtime_ns - seconds * 1_000_000_000 - nanoseconds
    if not 0 <= age_ns < LONGEST_AGE_NS:
        return data, read_ns, None
    return data, read_ns - age_ns, age_ns
