"""Kills writers of a FolderStore and looks at what they leave. A program of its own, because it forks:

python -m tests.store.crash_lab every_step|random_times FOLDER
"""

import itertools
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from moe_cap.errors import BusyError, ConflictError
from moe_cap.store import FolderStore

STEPS = ("replace", "fsync", "unlink", "mkdir", "rmdir")
FOLDERS = ("pending", "running", "finished")


def contents(root: Path) -> dict[str, bytes]:
    """What a fresh process sees, which completes what was cut short; what lies on the disk must be just that."""
    store = FolderStore(root)
    rev = store.head()
    seen = {path: store.read(path, rev) for path in store.list("", rev)}
    hidden = root / ".store"
    assert {p.name for p in hidden.iterdir()} <= {"lock", "part", ".gitignore"}, "an unfinished journal stayed"
    on_disk = {
        str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file() and hidden not in p.parents
    }
    assert seen == on_disk
    return seen


def in_child(work: Callable[[], None]) -> int:
    """Start `work` in a forked process and return its id."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    return child


def die_before_step(number: int) -> None:
    """Arrange that this process kills itself just before its `number`-th change of the file system."""
    count = itertools.count()

    def deadly(real: Callable[..., object]) -> Callable[..., object]:
        def step(*args: object, **kwargs: object) -> object:
            if next(count) == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return step

    for name in STEPS:
        setattr(os, name, deadly(getattr(os, name)))


def every_step(root: Path) -> None:
    """Kill one commit (a move, a rewrite, a removal) before each of its steps: all of it happens, or nothing."""
    old = {"pending/ab/x": b"x1", "running/cd/y": b"y1", "finished/ef/z": b"z1"}
    new = {"running/ab/x": b"x2", "running/cd/y": b"y2"}
    outcomes: list[bool] = []
    for number in itertools.count():
        folder = root / str(number)
        store = FolderStore(folder)
        rev = store.commit(old, [], store.head(), "before")

        def commit(number: int = number, store: FolderStore = store, rev: str = rev) -> None:
            die_before_step(number)
            store.commit(new, ["pending/ab/x", "finished/ef/z"], rev, "move, rewrite, remove")

        _, status = os.waitpid(in_child(commit), 0)
        seen = contents(folder)
        assert seen in (old, new), f"half done before step {number}: {seen}"
        outcomes.append(seen == new)
        FolderStore(folder).commit({"more": b"1"}, [], FolderStore(folder).head(), "the store goes on")
        if os.WIFEXITED(status):
            break
    assert not outcomes[0]
    assert outcomes[-1]
    assert outcomes == sorted(outcomes), "once decided, a commit stays decided"
    sys.stdout.write(f"{len(outcomes) - 1} kills, decided before step {outcomes.index(True)}\n")


def move_for_ever(root: Path, seed: int) -> None:
    """Move random records to random folders, counting the moves in each record."""
    rng, store = random.Random(seed), FolderStore(root)
    while True:
        try:
            rev = store.head()
            path = rng.choice(sorted(store.list("", rev)))
            record = json.loads(store.read(path, rev))
            record["moves"] += 1
            target = f"{rng.choice(FOLDERS)}/{record['id']}"
            data = json.dumps(record).encode()
            store.commit({target: data}, [path] if path != target else [], rev, "move")
        except (ConflictError, BusyError):
            continue


def random_times(root: Path, rounds: int = 30) -> None:
    """Kill one of two racing writers at a random moment, again and again: no record is lost, doubled or set back."""
    rng, store = random.Random(20), FolderStore(root)
    records = {f"pending/{number}": json.dumps({"id": str(number), "moves": 0}).encode() for number in range(5)}
    store.commit(records, [], store.head(), "start")
    moves = dict.fromkeys(map(str, range(5)), 0)
    survivor = in_child(lambda: move_for_ever(root, 0))
    try:
        for number in range(1, rounds):
            victim = in_child(lambda seed=number: move_for_ever(root, seed))  # type: ignore[misc]
            time.sleep(rng.uniform(0.002, 0.06))
            os.kill(victim, signal.SIGKILL)
            os.waitpid(victim, 0)
            while (seen := look(store)) is None:
                continue
            assert sorted(record["id"] for record in seen) == sorted(moves), f"lost or doubled: {seen}"
            for record in seen:
                assert record["moves"] >= moves[record["id"]], "set back"
                moves[record["id"]] = record["moves"]
    finally:
        os.kill(survivor, signal.SIGKILL)
        os.waitpid(survivor, 0)
    assert sorted(contents(root)) == sorted(store.list("", store.head()))
    sys.stdout.write(f"{rounds} kills, {sum(moves.values())} moves\n")


def look(store: FolderStore) -> list[dict[str, object]] | None:
    try:
        rev = store.head()
        return [json.loads(store.read(path, rev)) for path in store.list("", rev)]
    except (ConflictError, BusyError):
        return None


if __name__ == "__main__":
    {"every_step": every_step, "random_times": random_times}[sys.argv[1]](Path(sys.argv[2]))
