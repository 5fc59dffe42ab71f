"""One HTTP/1.1 connection without a layer between the socket and the clock."""

from __future__ import annotations

import errno
import socket
import ssl
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic_ns

import httptools

from moe_cap.measure.load.events import Failure, FailureKind
from moe_cap.measure.load.exchange import Exchange
from moe_cap.measure.load.loop import READABLE, WRITABLE, Loop
from moe_cap.measure.load.stamps import READ_BYTES, ask_for_stamps, receive


@dataclass(frozen=True, slots=True)
class Peer:
    """Where to connect to, resolved once before the run; `ca_file` as in `Target`."""

    family: socket.AddressFamily
    address: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
    host: str
    secure: bool = False
    ca_file: str | None = None


class Connection:
    """Carries one exchange at a time and is used again when the server keeps it open.

    Arrivals are stamped by the kernel, so a client that is late to read does not add its lateness to the server's
    latency.

    Args:
        loop: serves the socket.
        peer: the server.
        read_lags_ns: gets the age of every stamp: how late the client read.
        on_end: called once for each exchange, complete or failed.
    """

    def __init__(
        self, loop: Loop, peer: Peer, read_lags_ns: array[int], on_end: Callable[[Connection, Exchange], None]
    ) -> None:
        self._loop = loop
        self._peer = peer
        self._read_lags_ns = read_lags_ns
        self._on_end = on_end
        self._unsent = memoryview(b"")
        self._exchange: Exchange | None = None
        self._arrived_ns = 0
        self._complete = False
        self._framed = False
        self._keep = False
        self._parser = httptools.HttpResponseParser(self)
        self._socket: socket.socket | None = None
        self.is_open = False

    @property
    def exchange(self) -> Exchange | None:
        """The request that is under way."""
        return self._exchange

    def send(self, exchange: Exchange) -> None:
        """Begin an exchange, on the open connection or on a new one."""
        self._exchange = exchange
        self._unsent = memoryview(exchange.payload)
        self._complete = False
        exchange.sent_ns = exchange.heard_ns = self._arrived_ns = monotonic_ns()
        if self.is_open:
            self._write()
        else:
            self._connect()

    def fail(self, kind: FailureKind, message: str) -> None:
        """End the exchange under way as failed, and the connection with it."""
        exchange = self._exchange
        self.close()
        if exchange is not None:
            exchange.failure = Failure(kind, message, exchange.status)
            exchange.ended_ns = monotonic_ns()
            self._on_end(self, exchange)

    def close(self) -> None:
        """Leave nothing behind; may be called twice."""
        self.is_open = False
        self._exchange = None
        if self._socket is not None:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _connect(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        try:
            raw = socket.socket(self._peer.family, socket.SOCK_STREAM)
        except OSError as error:
            self.fail(FailureKind.UNREACHABLE, f"this machine gives no more sockets: {error}")
            return
        raw.setblocking(False)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ask_for_stamps(raw)
        self._socket = raw
        code = raw.connect_ex(self._peer.address)
        if code in {0, errno.EINPROGRESS}:
            self._loop.watch(raw.fileno(), WRITABLE, self._connected)
        else:
            self.fail(FailureKind.UNREACHABLE, errno.errorcode.get(code, str(code)))

    def _connected(self) -> None:
        if self._socket is None or self._exchange is None:
            return
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.fail(FailureKind.UNREACHABLE, errno.errorcode.get(code, str(code)))
            return
        self._opened(self._exchange)

    def _opened(self, exchange: Exchange) -> None:
        exchange.connected_ns = exchange.heard_ns = monotonic_ns()
        self.is_open = True
        self._write()

    def _write(self) -> None:
        if self._socket is None or self._exchange is None:
            return
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
            self._exchange.heard_ns = monotonic_ns()
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            pass
        except OSError as error:
            self.fail(FailureKind.DIED, f"while the request was sent: {error}")
            return
        if self._unsent:
            self._loop.watch(self._socket.fileno(), READABLE | WRITABLE, self._write_or_read)
        else:
            self._loop.watch(self._socket.fileno(), READABLE, self._read)

    def _write_or_read(self) -> None:
        self._write()
        if self._unsent:
            self._read()

    def _receive(self, source: socket.socket) -> bytes:
        """The next bytes; `_arrived_ns` becomes the time when the kernel had the last of them.

        Carrying a stamp over to another clock costs some microseconds of error, which must not turn the order around.
        """
        data, arrived_ns, age_ns = receive(source)
        self._arrived_ns = max(self._arrived_ns, arrived_ns)
        if age_ns is not None:
            self._read_lags_ns.append(age_ns)
        return data

    def _read(self) -> None:
        if self._socket is None:
            return
        try:
            data = self._receive(self._socket)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return
        except OSError as error:
            self._lost(str(error))
            return
        if data:
            self._feed(data)
        else:
            self._lost("the server closed the connection")

    def _feed(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None:
            self.close()  # bytes that nobody asked for: do not use this connection again
            return
        exchange.heard_ns = self._arrived_ns
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.fail(FailureKind.GARBAGE, f"not HTTP ({error}): {data[:60]!r}")
            return
        if self._complete:
            self._end(exchange, keep=self._keep)

    def _end(self, exchange: Exchange, *, keep: bool) -> None:
        exchange.ended_ns = self._arrived_ns
        self._exchange = None
        if not keep:
            self.close()
        self._on_end(self, exchange)

    def _lost(self, message: str) -> None:
        """The peer is gone: the end of an answer that had no length, or of one that was not over."""
        exchange = self._exchange
        framed = self._framed
        self.close()
        if exchange is None:
            return
        if exchange.status is not None and not framed:
            self._end(exchange, keep=False)
            return
        exchange.failure = Failure(FailureKind.DIED, f"{message} in the middle of an answer", exchange.status)
        exchange.ended_ns = monotonic_ns()
        self._on_end(self, exchange)

    # What httptools calls back.

    def on_message_begin(self) -> None:
        """A response starts."""
        self._framed = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of the response: remember whether it tells where the body ends."""
        lowered = name.lower()
        if lowered == b"content-length" or (lowered == b"transfer-encoding" and b"chunked" in value.lower()):
            self._framed = True

    def on_headers_complete(self) -> None:
        """The headers are there."""
        if self._exchange is not None:
            self._exchange.headers_ns = self._arrived_ns
            self._exchange.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """A piece of the body, free of its framing."""
        if self._exchange is not None:
            self._exchange.fragments.append((self._arrived_ns, body))
            self._exchange.events += body.startswith(b"data:") + body.count(b"\ndata:")  # JSON holds no bare newline

    def on_message_complete(self) -> None:
        """The response is over; whether the connection may be kept is only known now."""
        self._complete = True
        self._keep = self._parser.should_keep_alive()


class TlsConnection(Connection):
    """The same over TLS: a kernel's stamp would be that of an encrypted record, so the clock is read here."""

    def __init__(
        self,
        loop: Loop,
        peer: Peer,
        read_lags_ns: array[int],
        on_end: Callable[[Connection, Exchange], None],
        tls: ssl.SSLContext,
    ) -> None:
        super().__init__(loop, peer, read_lags_ns, on_end)
        self._tls = tls

    def _opened(self, exchange: Exchange) -> None:
        if isinstance(self._socket, ssl.SSLSocket):
            self._shake_hands()
            return
        if self._socket is None:
            return
        self._loop.forget(self._socket.fileno())
        try:
            self._socket = self._tls.wrap_socket(
                self._socket, server_hostname=self._peer.host, do_handshake_on_connect=False
            )
        except OSError as error:
            self.fail(FailureKind.UNREACHABLE, f"TLS: {error}")
            return
        self._shake_hands()

    def _shake_hands(self) -> None:
        if not isinstance(self._socket, ssl.SSLSocket) or self._exchange is None:
            return
        try:
            self._socket.do_handshake()
        except ssl.SSLWantReadError:
            self._loop.watch(self._socket.fileno(), READABLE, self._shake_hands)
        except ssl.SSLWantWriteError:
            self._loop.watch(self._socket.fileno(), WRITABLE, self._shake_hands)
        except OSError as error:
            self.fail(FailureKind.UNREACHABLE, f"TLS: {error}")
        else:
            super()._opened(self._exchange)

    def _receive(self, source: socket.socket) -> bytes:
        data = source.recv(READ_BYTES)
        self._arrived_ns = monotonic_ns()
        while isinstance(source, ssl.SSLSocket) and source.pending():
            data += source.recv(READ_BYTES)
        return data
