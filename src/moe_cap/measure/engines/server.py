"""A stock server that we start: under guard, on a free port of the loopback interface, within a bounded time.

Nothing of it outlives this process, not even after SIGKILL (`moe_cap.measure.guard`). What it says is kept, and the
last lines of that are in the error when it does not come up.
"""

from __future__ import annotations

import re
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path

import httpx2
import psutil

from moe_cap.errors import EngineCrashedError, EngineStartError, MeasurementError, OutOfMemoryError
from moe_cap.measure.engines.base import LaunchSpec
from moe_cap.measure.guarded import GuardedProcess, inherited

HOME, PORT, SCRATCH = "{home}", "{port}", "{scratch}"
"""Stand in a launch specification for what is only known at the start: the engine's environment folder, a free port,
and a folder of this run's own."""

GRACE_S = 3.0
"""Between SIGTERM and SIGKILL; less than an evaluation itself is given by its worker."""
LOOK_S = 0.2
"""Pause between two looks at a server that is coming up."""
CLEAR_S = 2.0
"""How long after a failed request a server may turn out to be dead."""
ANSWER_S = 2.0
"""A server that is up answers its ready URL within this."""
TAIL_LINES = 12
CAUSE_LINES = 3
TAIL_BYTES = 8192

OUT_OF_MEMORY = re.compile(
    r"out of memory|OutOfMemoryError|not enough memory|can't allocate memory|cannot allocate memory|std::bad_alloc"
    r"|No available memory for the cache blocks",
    re.IGNORECASE,
)
"""How engines, torch, C++ and the kernel say it."""
KILLED = re.compile(r"SIGKILL|exit ?code:? -9|signal 9\b", re.IGNORECASE)
"""How a server with several processes says that one of them was killed."""
BENIGN = re.compile(r"\b(?:INFO|WARN(?:ING)?|DEBUG|hint)\b", re.IGNORECASE)
"""A line that gives advice names what did not happen."""

PREFIX = re.compile(r"^\([^)]*pid=\d+\) (?:ERROR \S+ \S+ \[[^]]*\] )?")
"""What vLLM puts before the lines of its processes."""
RAISED = re.compile(r"^[\w.]*(?:Error|Exception): \S")


def first_error(said: str) -> str | None:
    """The first exception of a log and what follows it: the last one of several processes is never the cause."""
    lines = [PREFIX.sub("", line).rstrip() for line in said.splitlines()]
    raised = next((index for index, line in enumerate(lines) if RAISED.match(line)), None)
    return None if raised is None else "\n".join(lines[raised : raised + CAUSE_LINES])


def ran_out_of_memory(said: str) -> bool:
    """Whether a server that ended says that it was for lack of memory: as an exception, or in its last words."""
    lines = [PREFIX.sub("", line) for line in said.splitlines() if line.strip()]
    raised = (line for line in lines if RAISED.match(line))
    last = (line for line in lines[-TAIL_LINES:] if not BENIGN.search(line))
    return any(OUT_OF_MEMORY.search(line) for line in (*raised, *last))


def clean_environment(environ: Mapping[str, str], added: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a server: no secret, and nothing that decides a result unseen."""
    return inherited(environ) | {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"} | dict(added)


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def listening_ports(process: psutil.Process) -> set[int]:
    """Ports that a process takes connections on; none where it has ended."""
    try:
        told = process.net_connections("tcp")
    except psutil.NoSuchProcess:
        return set()
    return {each.laddr.port for each in told if each.status == psutil.CONN_LISTEN}


class Server:
    """One running server.

    Args:
        name: of the engine, for messages.
        spec: how it is started; `HOME`, `PORT` and `SCRATCH` in it are filled in.
        home: the engine's environment folder.
        log: its output is appended here; its ending and its scratch folder lie beside it.
        environ: of this process.
        port: one that is free; None takes any.
    """

    def __init__(
        self, name: str, spec: LaunchSpec, home: Path, log: Path, environ: Mapping[str, str], port: int | None = None
    ) -> None:
        if not spec.argv or spec.ready_url is None:
            raise EngineStartError(f"{name} is no server: its launch specification has no command or no ready URL")
        self.name = name
        self.port = port or free_port()
        self.log = log
        self.scratch = log.with_suffix(".scratch")
        self.scratch.mkdir(parents=True, exist_ok=True)
        self._home = home
        self._limit_s = spec.start_limit_s
        self._ready_url = self.fill(spec.ready_url)
        self._log_start = log.stat().st_size if log.exists() else 0
        self._process = GuardedProcess(
            [self.fill(argument) for argument in spec.argv],
            log=log,
            ending=log.with_suffix(".ending.json"),
            environ=clean_environment(environ, {key: self.fill(value) for key, value in spec.environment.items()}),
            grace_s=GRACE_S,
        )

    @property
    def url(self) -> str:
        """Base address of its OpenAI-compatible interface."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def guard_pid(self) -> int:
        """Process id of its guard, which is its session's too."""
        return self._process.pid

    def fill(self, text: str) -> str:
        """A part of the launch specification with what was only known at the start."""
        known = {HOME: str(self._home), PORT: str(self.port), SCRATCH: str(self.scratch)}
        for name, value in known.items():
            text = text.replace(name, value)
        return text

    def wait_until_ready(self) -> None:
        """Wait until it takes requests; when it does not come up, nothing of it is left.

        Raises:
            EngineStartError: it ended, or did not answer within its limit.
            OutOfMemoryError: it ended because the model does not fit.
        """
        until_s = time.monotonic() + self._limit_s
        try:
            with httpx2.Client(timeout=ANSWER_S, trust_env=False) as client:
                while not self._is_ready(client):
                    if self.has_ended():
                        raise self.explain_ending(EngineStartError, "ended while it was starting")
                    if time.monotonic() > until_s:
                        waited = f"did not answer {self._ready_url} within {self._limit_s:g} s{self._instead(client)}"
                        raise EngineStartError(f"{self.name} {waited}{self._last_words()}")
                    time.sleep(LOOK_S)
        except BaseException:
            self.stop()
            raise

    def _is_ready(self, client: httpx2.Client) -> bool:
        """Whether it answers, and not somebody else who took the port between its choice and its use."""
        try:
            return client.get(self._ready_url).status_code == httpx2.codes.OK and self.is_listening()
        except httpx2.HTTPError:
            return False

    def _instead(self, client: httpx2.Client) -> str:
        try:
            client.get(self._ready_url)
        except httpx2.HTTPError:
            return ""
        return "" if self.is_listening() else f"; another program answers there, which has taken port {self.port}"

    def is_listening(self) -> bool:
        """Whether a process of its own listens on its port; True where the system does not tell."""
        try:
            return self.port in {port for each in self._processes() for port in listening_ports(each)}
        except psutil.AccessDenied:
            return True

    def _processes(self) -> list[psutil.Process]:
        try:
            return list(psutil.Process(self.guard_pid).children(recursive=True))
        except psutil.NoSuchProcess:
            return []

    def has_ended(self) -> bool:
        """Whether it and all that it started are gone."""
        return self._process.has_ended()

    def explain_ending(self, kind: type[MeasurementError], what: str) -> MeasurementError:
        """Why it is gone, by its log and by the kernel."""
        ending = self._process.read_ending()
        status = "" if ending.status is None else f" (exit status {ending.status})"
        killed = ending.status == -signal.SIGKILL or KILLED.search(self._tail())
        if ran_out_of_memory(self.said()) or (killed and ending.oom_kills):
            kind = OutOfMemoryError
        return kind(f"{self.name} {what}{status}{self._last_words()}")

    def check_alive(self) -> None:
        """Tell a server that died from one that answers badly; its connections end before its guard has cleared up.

        Raises:
            EngineCrashedError: it is gone.
            OutOfMemoryError: it is gone, for lack of memory.
        """
        until_s = time.monotonic() + CLEAR_S
        while time.monotonic() < until_s:
            if self.has_ended():
                raise self.explain_ending(EngineCrashedError, "died")
            time.sleep(LOOK_S)

    def said(self) -> str:
        """Everything that it wrote since it was started."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode("utf-8", errors="replace")

    def _last_words(self) -> str:
        last = self._tail()
        if not last:
            return "; it said nothing"
        cause = first_error(self.said())
        first = f"; its first error:\n{cause}\n" if cause is not None and cause not in last else "; "
        return f"{first}its last words:\n{last}"

    def _tail(self) -> str:
        lines = [line.rstrip() for line in self.said()[-TAIL_BYTES:].splitlines() if line.strip()]
        return "\n".join(lines[-TAIL_LINES:])

    def stop(self) -> None:
        """End it with all that it started; may be called twice."""
        self._process.stop()


def start_server(
    name: str, spec: LaunchSpec, home: Path, log: Path, environ: Mapping[str, str], port: int | None = None
) -> Server:
    """Start a server and wait until it takes requests; raises as `Server.wait_until_ready` does."""
    server = Server(name, spec, home, log, environ, port)
    server.wait_until_ready()
    return server
