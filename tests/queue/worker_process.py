"""A worker as a process of its own: `python -m tests.queue.worker_process WHERE NAME work|hold`.

WHERE is a folder, or `ENDPOINT namespace/name CACHE_FOLDER` of a Hub double. `hold` claims one request, says so, and
waits to be killed.
"""

import os
import sys
import time
from pathlib import Path

from moe_cap.errors import ConflictError
from moe_cap.queue import Progress, Queue, State
from moe_cap.store import FolderStore, HubStore, Store

LEASE_S = 4.0
HEARTBEAT_S = 0.5


def open_at(where: str) -> Store:
    if " " not in where:
        store = FolderStore(where)
        store.heartbeat_s = HEARTBEAT_S  # a short lease for a short test
        return store
    endpoint, repo_id, cache = where.split()
    token = os.environ["DOUBLE_TOKEN"]
    return HubStore(repo_id, token=token, endpoint=endpoint, cache_folder=Path(cache), heartbeat_s=HEARTBEAT_S)


def work(queue: Queue, name: str) -> None:
    while True:
        try:
            mine = queue.claim(name)
            if mine is not None:
                mine = queue.heartbeat(mine, Progress("timing", 0.5))
                queue.finish(mine, [f"{mine.id}-{mine.attempts}"])
            elif all(request.state is State.FINISHED for request in queue.requests()):
                return
            else:
                time.sleep(0.1)
        except ConflictError:
            continue


def hold(queue: Queue, name: str) -> None:
    mine = queue.claim(name)
    assert mine is not None
    sys.stdout.write(f"{mine.id}\n")
    sys.stdout.flush()
    time.sleep(600)


if __name__ == "__main__":
    {"work": work, "hold": hold}[sys.argv[3]](Queue(open_at(sys.argv[1]), lease_s=LEASE_S), sys.argv[2])
