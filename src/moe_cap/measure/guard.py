"""Runs one command and lets nothing of it outlive its owner.

    python guard.py ENDING.json GRACE_S COMMAND...

Standard input is a pipe whose other end the owner keeps open. When that end closes, the owner is gone, even if it was
killed with SIGKILL and could do nothing any more: the command is then stopped as if SIGTERM had come. Stopping means
SIGTERM to the command, `GRACE_S` seconds for it to put its engine away, then SIGKILL to everything that it left.

It is started by path in a fresh interpreter, so it imports the standard library only, and every owner can use it.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LOOK_S = 0.1
"""Pause between two looks at the command; also how late an ending is noticed."""
KILL_S = 10.0
"""How long SIGKILL is repeated for processes that keep being forked."""

RSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")
LIBC = ctypes.CDLL(None, use_errno=True)


class Guard:
    """One command under guard."""

    def __init__(self, command: list[str], *, grace_s: float) -> None:
        self._grace_s = grace_s
        self._asked_to_stop = False
        signal.signal(signal.SIGTERM, self._note)
        signal.signal(signal.SIGINT, self._note)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if sys.platform == "linux":  # children of a dead child come to us, whatever session they are in
            LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=_prepare)

    def _note(self, _signum: int, _frame: FrameType | None) -> None:
        self._asked_to_stop = True

    def wait(self) -> int:
        """Wait for the command or for the order to stop, clear up, and return the command's status as Popen has it."""
        while self._child.poll() is None:
            if self._asked_to_stop or _owner_is_gone(LOOK_S):
                self._asked_to_stop = True
                self._stop_child()
        self._kill_what_is_left()
        return int(self._child.returncode)

    @property
    def asked_to_stop(self) -> bool:
        """Whether the end came from outside."""
        return self._asked_to_stop

    def _stop_child(self) -> None:
        self._child.terminate()
        try:
            self._child.wait(self._grace_s)
        except subprocess.TimeoutExpired:
            self._kill_what_is_left()
            self._child.wait()

    def _kill_what_is_left(self) -> None:
        until = time.monotonic() + KILL_S
        while time.monotonic() < until:
            left = list(_living_descendants(os.getpid()))
            _kill_group(self._child.pid)
            for pid in left:
                _kill(pid)
            if not left:
                return
            time.sleep(LOOK_S / 10)


def _prepare() -> None:
    """In the child, before exec: die with the guard, and be the first that the kernel takes when memory runs out."""
    if sys.platform != "linux":
        return
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    try:
        Path("/proc/self/oom_score_adj").write_text("800", encoding="ascii")
    except OSError:  # a sandbox without it; the kernel then takes the largest process, which is mostly the same one
        return


def _owner_is_gone(timeout_s: float) -> bool:
    ready, _, _ = select.select([0], [], [], timeout_s)
    return bool(ready) and os.read(0, 1024) == b""


def _living_descendants(root: int) -> Iterator[int]:
    """Processes below `root` that are no zombies, from /proc; none where there is no /proc."""
    children: dict[int, list[tuple[int, str]]] = {}
    for stat in PROC.glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:  # it ended meanwhile
            continue
        children.setdefault(int(fields[1]), []).append((int(stat.parent.name), fields[0]))
    waiting = [root]
    while waiting:
        for pid, state in children.get(waiting.pop(), []):
            waiting.append(pid)
            if state != "Z":
                yield pid


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # empty, or only zombies (macOS says EPERM)
        return


def count_oom_kills() -> int:
    """Processes that the kernel has killed for memory, of this control group where that is counted, else of all.

    0 where it does not say. A container counts its own: what happens in others says nothing about what runs here.
    """
    for path in (*_memory_counters(), PROC / "vmstat"):
        try:
            lines = path.read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        counts = [int(line.split()[1]) for line in lines if line.startswith("oom_kill ")]
        if counts:
            return counts[0]
    return 0


def _memory_counters() -> Iterator[Path]:
    """Where this control group may count them, by version 2 and 1; a container may see its own as the root.

    Source: Linux Documentation/admin-guide/cgroup-v2.rst (memory.events), cgroup-v1/memory.rst (memory.oom_control).
    """
    try:
        lines = (PROC / "self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            mount, name = CGROUPS, "memory.events"
        elif "memory" in controllers.split(","):
            mount, name = CGROUPS / "memory", "memory.oom_control"
        else:
            continue
        yield mount / path.lstrip("/") / name
        yield mount / name


def write_ending(path: Path, ending: dict[str, int | bool]) -> None:
    """Put the ending in place in one step, so that a reader sees all of it or nothing."""
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps(ending), encoding="utf-8")
    draft.replace(path)


def run(command: list[str], *, grace_s: float) -> dict[str, int | bool]:
    """Guard one command and say how it ended; 127 when it could not be started, as in a shell."""
    oom_kills_before = count_oom_kills()
    try:
        guard = Guard(command, grace_s=grace_s)
    except OSError as error:
        sys.stderr.write(f"cannot be started: {error}\n")
        return {"status": 127, "asked_to_stop": False, "oom_kills": 0, "max_rss_bytes": 0}
    return {
        "status": guard.wait(),
        "asked_to_stop": guard.asked_to_stop,
        "oom_kills": count_oom_kills() - oom_kills_before,
        "max_rss_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * RSS_UNIT_BYTES,
    }


def main(argv: list[str]) -> int:
    """Guard the command of `argv` and write how it ended."""
    write_ending(Path(argv[0]), run(argv[2:], grace_s=float(argv[1])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
