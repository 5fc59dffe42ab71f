"""What every engine that is a stock server shares: its environment, its start, and a session that owns the server.

A session here is that of an endpoint (`moe_cap.measure.engines.endpoint_session`) whose server is ours. An engine of
this kind gives a launch specification and says how its own words are read; it never drives load itself.
"""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import distributions
from math import prod
from pathlib import Path

from pydantic import JsonValue
from safetensors import safe_open

from moe_cap.architecture import parse_config
from moe_cap.errors import EngineStartError, ServerError, SubmissionError
from moe_cap.measure.engines.base import (
    Capabilities,
    Continuation,
    LaunchSpec,
    Request,
    Score,
    Tokenizer,
)
from moe_cap.measure.engines.endpoint import EndpointEngine
from moe_cap.measure.engines.endpoint_session import Attachment, EndpointSession
from moe_cap.measure.engines.hf_tokenizer import HubTokenizer
from moe_cap.measure.engines.server import Server, start_server
from moe_cap.measure.engines.watched import Unwatched, Watching
from moe_cap.measure.load import ClosedLoop, LoadRun, OpenLoop, Prompt, Rules
from moe_cap.measure.load.scheduling import ahead_of_others, among_others
from moe_cap.measure.model_files import ModelFiles
from moe_cap.offerings import ENGINES
from moe_cap.result import EngineRecord
from moe_cap.routing import RoutingSource
from moe_cap.settings import read_engines_folder

INSTALLED = "installed_version"
"""Argument of a record whose server calls itself otherwise than the installation that it was started from."""


def package_version(home: Path, *names: str) -> str | None:
    """Version of the first of these Python packages that an environment holds; None when it has none of them."""
    places = [str(place) for folder in home.glob("lib/python3*/site-packages") for place in _with_named(folder)]
    found = {each.metadata["Name"]: each.version for each in distributions(path=places)}
    return next((found[name] for name in names if name in found), None)


def _with_named(folder: Path) -> Iterator[Path]:
    """A folder of packages, and those that its `.pth` files name a line each, as Python's `site` takes them."""
    yield folder
    for names in sorted(folder.glob("*.pth")):
        lines = map(str.strip, names.read_text(encoding="utf-8", errors="replace").splitlines())
        named = (folder / line for line in lines if line and not line.startswith(("#", "import ", "import\t")))
        yield from (place for place in named if place.is_dir())


def threads_beside_the_client() -> int:
    """All processors that this process may use but one, and no more than OMP_NUM_THREADS.

    The threads of ggml and torch wait by spinning: one more than there are processors left and each pass waits for it.
    """
    free = len(os.sched_getaffinity(0)) - 1
    return max(1, min(free, int(os.environ.get("OMP_NUM_THREADS") or free)))


def cast_bytes(files: ModelFiles, bytes_per_value: float) -> float:
    """Bytes of a checkpoint whose every value is held in one number format, from the shapes in its files."""
    values = 0
    for path in files.weights:
        with safe_open(path, "np") as tensors:
            values += sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118 no mapping
    return values * bytes_per_value


@dataclass(frozen=True, slots=True)
class Installation:
    """An engine as it lies on this machine."""

    home: Path
    version: str


class ServerEngine(ABC):
    """An engine that is a stock server; see `moe_cap.measure.engines.base.Engine`.

    Args:
        rules: what is believed of a timed pass.
        read_tokenizer: the model's own, from its files.
    """

    name: str
    routing: RoutingSource | None = RoutingSource.REPLAY

    def __init__(
        self, rules: Rules | None = None, read_tokenizer: Callable[[ModelFiles], Tokenizer] = HubTokenizer
    ) -> None:
        self._rules = rules or Rules()
        self._read_tokenizer = read_tokenizer

    @abstractmethod
    def version_in(self, home: Path) -> str | None:
        """Version of the engine in an environment folder; None when it is not there. Starts nothing."""

    @abstractmethod
    def launch_spec(self, files: ModelFiles, precision: str) -> LaunchSpec:
        """How its server is started; starts nothing."""

    def served_name(self, spec: LaunchSpec) -> str | None:
        """Under which its command has the model served; None where it has the say."""
        return spec.files.name

    def homes(self) -> tuple[Path, ...]:
        """Where it may be installed: an environment of its own, else this one."""
        return read_engines_folder(os.environ) / self.name, Path(sys.prefix)

    def find(self) -> Installation | None:
        """The first place where it is installed."""
        found = ((home, self.version_in(home)) for home in self.homes())
        return next((Installation(home, version) for home, version in found if version is not None), None)

    def probe(self) -> Capabilities:
        """Whether it is installed; never starts anything."""
        found = self.find()
        if found is None:
            looked = " nor in ".join(str(home) for home in self.homes())
            return Capabilities(False, f"not installed in {looked}", None, self.routing)
        return Capabilities(True, None, found.version, self.routing)

    def check_precision(self, precision: str) -> None:
        """Refuse what this engine does not offer.

        Raises:
            SubmissionError: at the field `precision`.
        """
        if precision not in ENGINES[self.name].precisions:
            known = ", ".join(ENGINES[self.name].precisions)
            raise SubmissionError(f"{self.name} has no precision {precision!r}; there are: {known}", field="precision")

    def start(self, spec: LaunchSpec, log: Path) -> ServerSession:
        """Start its server and find out how it can be spoken to.

        Raises:
            EngineStartError: it is not installed, or did not come up.
            OutOfMemoryError: the model does not fit.
            EngineCrashedError: it came up, and its first request ended it.
            ServerError: it came up and answers badly.
        """
        server = self.launch(spec, log)
        try:
            return self._attach(spec, server)
        except BaseException:
            server.stop()
            raise

    def _attach(self, spec: LaunchSpec, server: Server) -> ServerSession:
        endpoint = EndpointEngine(
            server.url, self.served_name(spec), rules=self._rules, read_tokenizer=self._read_tokenizer, name=self.name
        )
        try:
            return self.session(spec, server, endpoint.attach(spec))
        except (ServerError, EngineStartError):
            server.check_alive()
            raise

    def launch(self, spec: LaunchSpec, log: Path, port: int | None = None) -> Server:
        """The server alone, on a port of its own or a given one; raises as `start` does."""
        found = self.find()
        if found is None:
            raise EngineStartError(f"{self.name} is {self.probe().reason}")
        return start_server(self.name, spec, found.home, log, os.environ, port)

    def session(self, spec: LaunchSpec, server: Server, attachment: Attachment) -> ServerSession:
        """The session over a server that answers; an engine with words of its own returns its own kind."""
        return ServerSession(self, spec, server, attachment)


class ServerSession(EndpointSession):
    """A server that is ours; see `moe_cap.measure.engines.base.Session`."""

    def __init__(self, engine: ServerEngine, spec: LaunchSpec, server: Server, attachment: Attachment) -> None:
        super().__init__(spec, server.log, attachment)
        self.engine = engine
        self.server = server
        self._serving = spec
        self._about = super().describe()
        self._installed = engine.probe().version
        self._client_place: Callable[[], AbstractContextManager[str]] = among_others
        self._client_runs: str | None = None

    def describe(self) -> EngineRecord:
        """What the timed server said about itself, and the version that was started."""
        version = self._about.version or self._installed
        arguments = {**self._about.arguments, "load_client_runs": self._client_runs}
        if self._installed not in {None, version}:
            arguments[INSTALLED] = self._installed
        return self._about.model_copy(update={"name": self.engine.name, "version": version, "arguments": arguments})

    @property
    def routes(self) -> bool:
        """By the engine itself, or by a replay of weights that are all here."""
        return bool(parse_config(self._spec.files.config).moe_blocks)

    def watch(self) -> Watching:
        """Not from outside; an engine whose passes can be read says by what, for closed and open loops alike."""
        return Unwatched(None)

    def serve(self, spec: LaunchSpec) -> None:
        """Have the server run by this specification: it is started anew on its port where it ran by another.

        Memory holds one server, so the timed one and a recording one take turns.
        """
        if spec is not self._serving:
            self.server.stop()
            self.server = self.engine.launch(spec, self.server.log, self.server.port)
            self._serving = spec

    @contextmanager
    def living(self) -> Iterator[None]:
        """Tell a server that died from one that answers badly, whatever it was asked.

        Raises:
            EngineCrashedError: the server died.
            OutOfMemoryError: it died for lack of memory.
            ServerError: it lives and answers badly.
        """
        try:
            yield
        except ServerError:
            self.server.check_alive()
            raise

    def _load(self, requests: Sequence[Request], arrivals: ClosedLoop | OpenLoop) -> LoadRun:
        """By the timed server; ahead of its threads, which share this machine, once the client has been late."""
        self.serve(self._spec)
        with self.living(), self._client_place() as self._client_runs:
            run = super()._load(requests, arrivals)
        if run.late_client:
            self._client_place = ahead_of_others
        return run

    def score(self, continuations: Sequence[Continuation]) -> list[Score]:
        """By the timed server; raises as `living` does."""
        self.serve(self._spec)
        with self.living():
            return super().score(continuations)

    @property
    def answering_spec(self) -> LaunchSpec:
        """Whose server answers the accuracy harness: the timed one's."""
        return self._spec

    def _answers(self, asked: Sequence[Prompt], extra: Mapping[str, JsonValue]) -> list[str]:
        self.serve(self.answering_spec)
        with self.living():
            return super()._answers(asked, extra)

    def stop(self) -> None:
        """End the server and what was started beside it."""
        super().stop()
        self.server.stop()
