"""Sockets and deadlines on one thread, to the microsecond.

asyncio wakes up on the next whole millisecond (its selector rounds timeouts up) and spends several microseconds between
the kernel and the protocol; a load client pays both in every number that it reports. This loop keeps epoll and a heap,
and nothing else.
"""

from __future__ import annotations

import heapq
import os
import resource
import select
import sys
import threading
from collections.abc import Callable
from itertools import count
from time import monotonic_ns

from moe_cap.errors import InvalidInputError

READABLE = getattr(select, "EPOLLIN", 0)
WRITABLE = getattr(select, "EPOLLOUT", 0)

BATCH = 32
"""Sockets served between two looks at the deadlines: bounds how late a send can be behind a burst of arrivals."""

LONGEST_WAIT_S = 1.0

Callback = Callable[[], None]


def _no_work() -> bool:
    return False


def allow_many_sockets() -> None:
    """A connection for each request under way: the usual soft limit of 1024 is below that."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Loop:
    """Calls back when a socket is ready or a deadline has come; `idle` gets the time that nobody else needs.

    Args:
        idle: does a slice of work of well under 0.1 ms and says whether it did any; called when no socket is ready.

    Attributes:
        waited_ns: time spent blocked in the kernel because there was nothing to do.
        idle_ns: time spent in `idle`.
    """

    def __init__(self, idle: Callable[[], bool] = _no_work) -> None:
        if not hasattr(select, "epoll"):
            raise InvalidInputError(f"the load client needs epoll, which {sys.platform} lacks: run it on Linux")
        self._epoll = select.epoll()
        self._ready: dict[int, Callback] = {}
        self._deadlines: list[tuple[int, int, Callback]] = []
        self._order = count()
        self._idle = idle
        self._stopped = threading.Event()
        self._waker = os.eventfd(0, os.EFD_NONBLOCK)
        self.waited_ns = 0
        self.idle_ns = 0
        self.watch(self._waker, READABLE, self._woken)

    def watch(self, fd: int, events: int, callback: Callback) -> None:
        """Call back whenever `fd` is ready for `events`, in place of what was asked for it before."""
        if fd in self._ready:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._ready[fd] = callback

    def forget(self, fd: int) -> None:
        """Never call back for `fd` again; before it is closed."""
        if self._ready.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def call_at(self, at_ns: int, callback: Callback) -> None:
        """Call back once, at or soon after `at_ns` on the clock of `time.monotonic_ns`."""
        heapq.heappush(self._deadlines, (at_ns, next(self._order), callback))

    def run(self) -> None:
        """Serve until `stop`."""
        epoll, ready = self._epoll, self._ready
        while not self._stopped.is_set():
            self._fire_due()
            events = epoll.poll(0, BATCH)
            for fd, _ in events:
                callback = ready.get(fd)
                if callback is not None:
                    callback()
            if not events:
                began = monotonic_ns()
                if self._idle():
                    self.idle_ns += monotonic_ns() - began
                else:
                    self._wait()

    def stop(self) -> None:
        """End `run` after the callback that runs now; may be called from another thread."""
        self._stopped.set()
        os.eventfd_write(self._waker, 1)

    def close(self) -> None:
        """Give the descriptors back; the loop is over."""
        self._epoll.close()
        os.close(self._waker)

    def _fire_due(self) -> None:
        deadlines = self._deadlines
        now = monotonic_ns()
        while deadlines and deadlines[0][0] <= now:
            heapq.heappop(deadlines)[2]()

    def _wait(self) -> None:
        began = monotonic_ns()
        wait_s = LONGEST_WAIT_S
        if self._deadlines:
            wait_s = min(wait_s, (self._deadlines[0][0] - began) / 1e9)
        if wait_s > 0 and not self._stopped.is_set():
            # epoll_wait counts in milliseconds, select in microseconds; an epoll descriptor can itself be waited for.
            select.select([self._epoll], (), (), wait_s)
            self.waited_ns += monotonic_ns() - began

    def _woken(self) -> None:
        os.eventfd_read(self._waker)
