"""Many exchanges with one server on one thread: connections, limits, and reading the answers when there is time."""

from __future__ import annotations

import socket
import ssl
from array import array
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic_ns

from moe_cap.errors import ServerError
from moe_cap.measure.load.connection import Connection, Peer, TlsConnection
from moe_cap.measure.load.events import Failure, FailureKind
from moe_cap.measure.load.exchange import Exchange
from moe_cap.measure.load.loop import Loop
from moe_cap.measure.load.request import Target
from moe_cap.measure.load.stream import StreamReader

BEAT_NS = 5_000_000
"""The heart beats this often; how late it beats is how late the loop is for everything. One that was missed is late."""

MISSED_NS = 3_600_000_000_000
"""Beats that are missed in one pause are noted as far as an hour of them goes, some megabytes."""

BEATS_PER_LOOK = 20
"""Limits are looked at every 0.1 s: they are seconds."""

REUSE_WITHIN_NS = 2_000_000_000
"""Servers close a connection that was idle for about 5 s; a request sent into that moment would fail without fault."""

TRIED_S = 3.0
"""Until one of several addresses of a name takes a connection."""

SLICE = 8
"""Fragments read in one idle slice: about 50 us."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long the client waits, seconds.

    Attributes:
        connect_s: until a new connection stands.
        silence_s: between two signs of life, the wait for the first token included.
        request_s: for a whole answer.
    """

    connect_s: float = 10.0
    silence_s: float = 300.0
    request_s: float = 3600.0


def find_peer(target: Target) -> Peer:
    """Resolve the target's address, once and before anything is timed.

    A name with several addresses stands for the first of them that takes a connection (`localhost` is ::1 too, where a
    server may not listen).

    Raises:
        InvalidInputError: not an address.
        ServerError: the name is unknown, or the certificate authority cannot be read.
    """
    parts = target.split()
    secure = parts.scheme == "https"
    host = parts.hostname or ""
    try:
        found = socket.getaddrinfo(host, parts.port or (443 if secure else 80), type=socket.SOCK_STREAM)
        if secure:
            ssl.create_default_context(cafile=target.ca_file)  # told now if it cannot be read
    except OSError as error:
        raise ServerError(f"{target.url} cannot be reached: {error}") from error
    peers = [Peer(family, address, host, secure, target.ca_file) for family, _, _, _, address in found]
    return peers[0] if len(peers) == 1 else next(filter(_takes_connections, peers), peers[0])


def _takes_connections(peer: Peer) -> bool:
    try:
        with socket.socket(peer.family, socket.SOCK_STREAM) as tried:
            tried.settimeout(TRIED_S)
            tried.connect(peer.address)
    except OSError:
        return False
    return True


class Client:
    """Sends exchanges and hands them back with their answers read.

    Reading an answer's JSON is put off until no socket is ready and no send is due, so it delays neither an arrival's
    stamp nor the next request.

    Args:
        peer: the server.
        limits: how long to wait.
        on_end: an exchange is over, its place is free; called at once.
        on_read: its answer has been read; called when there was time for it.

    Attributes:
        loop: serves this client; `run` it.
        beat_lags_ns: how late each heartbeat was, missed ones included.
        read_lags_ns: how late each arrival was read, where the kernel stamps them.
    """

    def __init__(
        self,
        peer: Peer,
        limits: Limits,
        on_end: Callable[[Exchange], None],
        on_read: Callable[[Exchange, StreamReader], None],
    ) -> None:
        self.loop = Loop(self._read_slice)
        self.beat_lags_ns = array("q")
        self.read_lags_ns = array("q")
        self._peer = peer
        self._tls = ssl.create_default_context(cafile=peer.ca_file) if peer.secure else None
        self._limits = limits
        self._on_end = on_end
        self._on_read = on_read
        self._idle: list[tuple[int, Connection]] = []
        self._busy: set[Connection] = set()
        self._unread: deque[Exchange] = deque()
        self._reader = StreamReader()
        self._fragment = 0
        self._beats = 0
        self._beat_ns = 0

    def start(self) -> None:
        """Begin to beat; when the loop has its turn next, or the first beat would be late for no fault of the loop."""
        self._beat_ns = monotonic_ns() + BEAT_NS
        self.loop.call_at(self._beat_ns, self._beat)

    @property
    def in_flight(self) -> int:
        """Requests sent and not over."""
        return len(self._busy)

    def send(self, exchange: Exchange) -> None:
        """Begin an exchange now."""
        connection = self._free_connection()
        self._busy.add(connection)
        connection.send(exchange)

    def abandon(self, reason: str) -> None:
        """End everything that is under way as failed."""
        for connection in tuple(self._busy):
            connection.fail(FailureKind.ABANDONED, reason)

    def read_all(self) -> None:
        """Read every answer that is still waiting, now."""
        while self._read_slice():
            pass

    def close(self) -> None:
        """Close all connections and the loop."""
        for connection in [*self._busy, *(connection for _, connection in self._idle)]:
            connection.close()
        self.loop.close()

    def _free_connection(self) -> Connection:
        oldest_ns = monotonic_ns() - REUSE_WITHIN_NS
        while self._idle:
            since_ns, connection = self._idle.pop()
            if connection.is_open and since_ns >= oldest_ns:
                return connection
            connection.close()
        if self._tls is not None:
            return TlsConnection(self.loop, self._peer, self.read_lags_ns, self._ended, self._tls)
        return Connection(self.loop, self._peer, self.read_lags_ns, self._ended)

    def _ended(self, connection: Connection, exchange: Exchange) -> None:
        self._busy.discard(connection)
        if connection.is_open:
            self._idle.append((exchange.ended_ns, connection))
        self._unread.append(exchange)
        self._on_end(exchange)

    def _read_slice(self) -> bool:
        if not self._unread:
            return False
        exchange, reader = self._unread[0], self._reader
        fragments = exchange.fragments
        if exchange.status == 200:
            last = min(self._fragment + SLICE, len(fragments))
            for index in range(self._fragment, last):
                reader.feed(*fragments[index])
            self._fragment = last
            if last < len(fragments):
                return True
        self._judge(exchange, reader)
        exchange.fragments = []
        self._unread.popleft()
        self._reader, self._fragment = StreamReader(), 0
        self._on_read(exchange, reader)
        return True

    def _judge(self, exchange: Exchange, reader: StreamReader) -> None:
        if exchange.failure is not None:
            return
        if exchange.status != 200:
            body = b"".join(fragment for _, fragment in exchange.fragments)[:200].decode(errors="replace").strip()
            exchange.failure = Failure(FailureKind.STATUS, f"HTTP {exchange.status}: {body}", exchange.status)
            return
        reader.end()
        exchange.failure = reader.failure

    def _beat(self) -> None:
        now_ns = monotonic_ns()
        late_ns = now_ns - self._beat_ns
        self.beat_lags_ns.extend(range(late_ns, max(-1, late_ns - MISSED_NS), -BEAT_NS))
        self._beat_ns += BEAT_NS * (1 + late_ns // BEAT_NS)
        self._beats += 1
        if self._beats % BEATS_PER_LOOK == 0:
            self._look_at_limits(now_ns)
        self.loop.call_at(self._beat_ns, self._beat)

    def _look_at_limits(self, now_ns: int) -> None:
        limits = self._limits
        for connection in tuple(self._busy):
            exchange = connection.exchange
            if exchange is None:
                continue
            silent_s = (now_ns - exchange.heard_ns) / 1e9
            if not connection.is_open and silent_s > limits.connect_s:
                connection.fail(FailureKind.UNREACHABLE, f"no connection within {limits.connect_s:g} s")
            elif silent_s > limits.silence_s:
                connection.fail(FailureKind.SILENT, f"nothing came for {limits.silence_s:g} s")
            elif exchange.events > exchange.most_events:
                told = f"{exchange.events} events came, at most {exchange.most_events} were expected: it has no end"
                connection.fail(FailureKind.TOO_MUCH, told)
            elif (now_ns - exchange.sent_ns) / 1e9 > limits.request_s:
                connection.fail(FailureKind.TOO_LONG, f"no end within {limits.request_s:g} s")
