import socket
import time
from time import monotonic_ns

import pytest

from moe_cap.measure.load import client as module
from moe_cap.measure.load.client import BEAT_NS, Client, Limits
from moe_cap.measure.load.connection import Peer

PAUSE_S, RUN_NS = 0.2, 300_000_000


def beats_of_a_client_that_stood_still() -> tuple[list[int], int]:
    """How late each was, and how long it was all in all: on a busy machine the end comes late too."""
    client = Client(Peer(socket.AF_INET, ("127.0.0.1", 9), "127.0.0.1"), Limits(), lambda _: None, lambda *_: None)
    client.start()
    start_ns = monotonic_ns()
    client.loop.call_at(start_ns, lambda: time.sleep(PAUSE_S))
    client.loop.call_at(start_ns + RUN_NS, client.loop.stop)
    client.loop.run()
    client.close()
    return list(client.beat_lags_ns), monotonic_ns() - start_ns


def test_every_beat_that_a_pause_swallowed_is_late() -> None:
    lags_ns, _ = beats_of_a_client_that_stood_still()
    assert len(lags_ns) >= RUN_NS // BEAT_NS - 1
    assert sum(lag_ns > BEAT_NS for lag_ns in lags_ns) >= PAUSE_S * 1e9 // BEAT_NS - 2
    assert min(lags_ns) >= 0


def test_a_long_pause_fills_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MISSED_NS", 10 * BEAT_NS)
    lags_ns, took_ns = beats_of_a_client_that_stood_still()
    assert len(lags_ns) <= (took_ns - PAUSE_S * 1e9) // BEAT_NS + 12
