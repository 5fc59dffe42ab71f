"""The load client's place among the threads of a machine that it shares with the server.

A client sleeps nearly all the time and is late when it is not run at once on waking up: the kernel lets an ordinary
thread wait until another one's slice is over, several milliseconds where a server keeps every processor busy (EEVDF,
Linux Documentation/scheduler/sched-eevdf.rst). A thread of the real-time class never waits for an ordinary one. That
has its price where nothing has to be waited for: on waking it takes the processor that it ran on from whoever runs
there, though another one be idle (`select_task_rq_rt` in kernel/sched/rt.c). So the class is taken once a client was
late, not before.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

FIRST = "real time (SCHED_RR 1)"
AS_ALL = "as all threads"
NOT_PERMITTED = "as all threads: the system permits no other (CAP_SYS_NICE)"


@contextmanager
def among_others() -> Iterator[str]:
    """Run this thread as it is; says so."""
    yield AS_ALL


@contextmanager
def ahead_of_others() -> Iterator[str]:
    """Run this thread ahead of every ordinary one while the context lasts, where that is permitted; says which it is.

    It takes no more time than it would: what it did late before, it does at once.
    """
    before, rank = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        yield NOT_PERMITTED
        return
    try:
        yield FIRST
    finally:
        os.sched_setscheduler(0, before, rank)
