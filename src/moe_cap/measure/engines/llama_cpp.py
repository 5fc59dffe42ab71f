"""llama.cpp, as its stock `llama-server`, on a GGUF file that its own converter and quantiser wrote, or that was given.

The timed pass runs on a server that knows nothing of us. For the routing pass and for scores it is stopped and started
once more on the same port with a recorder loaded before it (`inside/moe_cap_llama_recorder.c`), and every sequence goes
through as one prompt. Without the recorder transformers replays the tokens of unquantised weights, those of quantised
ones by nobody, and nothing can be scored.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from pydantic import JsonValue

from moe_cap.architecture import Architecture, parse_config
from moe_cap.errors import InvalidRunError
from moe_cap.measure.engines.arrivals import ByArrivals
from moe_cap.measure.engines.base import Completion, Continuation, LaunchSpec, Request, RoutingRows, Score
from moe_cap.measure.engines.endpoint_session import Attachment
from moe_cap.measure.engines.gguf_files import (
    CONVERTED,
    gguf_kind,
    gguf_name,
    given_gguf,
    make_gguf,
    refuse_other_type,
)
from moe_cap.measure.engines.gguf_tensors import GgufFile, GgufStorage, gguf_storage, read_gguf
from moe_cap.measure.engines.launched import ServerEngine, ServerSession, threads_beside_the_client
from moe_cap.measure.engines.llama_log import parse_log
from moe_cap.measure.engines.llama_trace import TracedPass, parse_trace, whole_sequence
from moe_cap.measure.engines.server import HOME, PORT, SCRATCH, Server
from moe_cap.measure.engines.teacher_forcing import forced_tokens
from moe_cap.measure.engines.watched import SPECULATIVE, Unwatched, Watching
from moe_cap.measure.load import ClosedLoop, LoadRun, OpenLoop, Rules
from moe_cap.measure.model_files import ModelFiles
from moe_cap.precision import StoragePlan
from moe_cap.precision.formats import FP16, FP32, WeightFormat
from moe_cap.result import EngineRecord
from moe_cap.settings import read_engines_folder

SERVER = "bin/llama-server"
RECORDER = "bin/libmoe_cap_llama_recorder.so"
TRACE = f"{SCRATCH}/llama-passes.jsonl"
SLOTS = 64
CONTEXT = 32768
"""Tokens of all slots together."""
TELLING = "4"
"""The log level at which it names its devices: a few lines more at the start and per request, none per token."""
PASS_TOKENS = 512
"""A physical batch (`--ubatch-size`): a longer prompt is cut, and the weights are read once for each part."""
UNTOLD_SIZE = "llama-server does not tell its slots and its tokens of one pass: that wants --verbosity 4"

CACHES: dict[str, WeightFormat] = {"fp32": FP32}
"""Of keys and values where it is not fp16, llama-server's default."""
ATTENTION = {"fp32": "off"}
"""Flash attention on a processor rounds: log-probabilities in fp32 came 1e-3 a token off, and 1e-6 without it."""
COMPUTE = {"int8": "int8", "int4": "int8"}
"""ggml quantises activations too and multiplies in integers (`vec_dot_type` of ggml-cpu.c, `mmq.cu`)."""


def cache_format(precision: str) -> WeightFormat:
    """Of keys and values."""
    return CACHES.get(precision, FP16)


class LlamaCppEngine(ServerEngine):
    """The engine as a description; see `moe_cap.measure.engines.base.Engine`.

    Args:
        name: of the registry's line.
        placement: arguments that say where weights lie.
        rules: what is believed of a timed pass.
    """

    def __init__(self, name: str = "llama-cpp", placement: Sequence[str] = (), rules: Rules | None = None) -> None:
        super().__init__(rules)
        self.name = name
        self._placement = tuple(placement)

    def homes(self) -> tuple[Path, ...]:
        """One folder for every placement: `bin` of a build, `source` for its converter, `version`, and `gguf` files."""
        return (read_engines_folder(os.environ) / "llama-cpp",)

    def version_in(self, home: Path) -> str | None:
        """What was written down at the installation."""
        version = home / "version"
        return version.read_text(encoding="utf-8").strip() if (home / SERVER).is_file() and version.is_file() else None

    def launch_spec(self, files: ModelFiles, precision: str) -> LaunchSpec:
        """All slots share one cache, no prompt is kept for the next one, nothing is fitted to the machine."""
        self.check_precision(precision)
        threads, cache = str(threads_beside_the_client()), f"f{cache_format(precision).bits}"
        model = given_gguf(files) or f"{HOME}/gguf/{gguf_name(files, gguf_kind(files.config, precision))}"
        argv = (
            f"{HOME}/{SERVER}", "--model", str(model), "--alias", files.name,
            "--host", "127.0.0.1", "--port", PORT, "--threads", threads, "--threads-batch", threads,
            "--parallel", str(SLOTS), "--kv-unified", "--ctx-size", str(CONTEXT), "--ubatch-size", str(PASS_TOKENS),
            "--cache-type-k", cache, "--cache-type-v", cache, "--flash-attn", ATTENTION.get(precision, "auto"),
            "--no-cache-prompt", "--cache-ram", "0", "--fit", "off", "--no-ui", "--verbosity", TELLING,
            *self._placement,
        )  # fmt: skip
        return LaunchSpec(
            files=files,
            precision=precision,
            options={"threads": int(threads)},
            argv=argv,
            environment={"LD_LIBRARY_PATH": f"{HOME}/bin"},
            ready_url=f"http://127.0.0.1:{PORT}/health",
        )

    def gguf(self, spec: LaunchSpec) -> Path:
        """The model's file: the one that was given, else where the converted one lies."""
        name = gguf_name(spec.files, gguf_kind(spec.files.config, spec.precision))
        return given_gguf(spec.files) or self.homes()[0] / "gguf" / name

    def launch(self, spec: LaunchSpec, log: Path, port: int | None = None) -> Server:
        """Make the model's file if need be, then start.

        Raises:
            SubmissionError: a given file has another precision.
        """
        found, path = self.find(), self.gguf(spec)
        if given_gguf(spec.files) is not None:
            refuse_other_type(read_gguf(path), spec.precision, path.name)
        elif found is not None:
            make_gguf(spec.files, gguf_kind(spec.files.config, spec.precision), found.home, path, log)
        return super().launch(spec, log, port)

    def session(self, spec: LaunchSpec, server: Server, attachment: Attachment) -> LlamaCppSession:
        """Over a server that answers; with the recorder where it was built."""
        kind = RecordedSession if (self.homes()[0] / RECORDER).is_file() else LlamaCppSession
        return kind(self, spec, server, attachment)


def recording(timed: LaunchSpec) -> LaunchSpec:
    """The timed server's specification with the recorder before it; a pure function.

    `env` sets the variable, so that the guard of the server does not load the recorder too.
    """
    return replace(
        timed,
        argv=("env", f"LD_PRELOAD={HOME}/{RECORDER}", *timed.argv, "--no-warmup"),
        environment={**timed.environment, "MOE_CAP_TRACE": TRACE},
    )


class LlamaCppSession(ServerSession):
    """A running llama-server; see `moe_cap.measure.engines.base.Session`."""

    def __init__(self, engine: LlamaCppEngine, spec: LaunchSpec, server: Server, attachment: Attachment) -> None:
        # llama-server announces that it keeps connections and closes each after a stream (seen in b11434).
        unkept = replace(attachment.target, headers={**attachment.target.headers, "Connection": "close"})
        super().__init__(engine, spec, server, replace(attachment, target=unkept))
        self._told = parse_log(server.said())
        self._path = engine.gguf(spec)

    @cached_property
    def _file(self) -> GgufFile:
        return read_gguf(self._path)

    @cached_property
    def _stored(self) -> GgufStorage:
        precision, architecture = self._spec.precision, parse_config(self._spec.files.config)
        cache, compute = cache_format(precision), COMPUTE.get(precision, precision)
        return gguf_storage(architecture, self._file, kv=cache, compute_dtype=compute)

    def describe(self) -> EngineRecord:
        """By /props and the log of the timed server, what it was started with, and what its file holds."""
        record, devices = super().describe(), self._told.get("devices")
        number = max(1, len(devices)) if isinstance(devices, list) else 1
        rows = "row" in self._spec.argv  # of --split-mode; layers are dealt out otherwise
        file: dict[str, JsonValue] = {
            "type": self._file.file_type,
            "bytes_by_type": dict(self._file.bytes_by_kind()),
            "matrices_not_told": list(self._stored.untold),
        }
        command: list[JsonValue] = [*self._spec.argv]
        told: dict[str, JsonValue] = {"command": command, "routing_pass": self._routed_by(), "gguf": file}
        return record.model_copy(
            update={
                "arguments": {**record.arguments, **self._told, **told},
                "kv_dtype": self._stored.plan.kv.name,
                "compute_dtype": self._stored.plan.compute_dtype,
                "tensor_parallel" if rows else "pipeline_parallel": number,
            }
        )

    @property
    def _replays(self) -> bool:
        return self._spec.precision in CONVERTED and given_gguf(self._spec.files) is None

    def _routed_by(self) -> str:
        return super()._routed_by() if self._replays else "nobody: only the server has these weights"

    def storage(self, architecture: Architecture) -> StoragePlan:
        """As the file lists its tensors."""
        return self._stored.plan

    def weights_bytes(self) -> float:
        """Of the file's tensors that a step can read; neither its vocabulary nor its header."""
        layers = parse_config(self._spec.files.config).num_layers
        return float(sum(tensor.num_bytes for tensor in self._file.read_by(layers)))

    def route(self, requests: Sequence[Request], completions: Sequence[Completion]) -> tuple[RoutingRows, ...]:
        """By transformers, where it has the same weights; () for quantised ones and for a given file."""
        return super().route(requests, completions) if self._replays else ()

    def _load(self, requests: Sequence[Request], arrivals: ClosedLoop | OpenLoop) -> LoadRun:
        """An open loop has as many requests at once as the server is slow: what it has no room for then, it refuses.

        Raises:
            InvalidRunError: more requests are sure to be there at once than the server has slots or cache for.
        """
        together = arrivals.concurrency or 1
        longest = max(len(request.prompt) + request.output_tokens for request in requests)
        slots, context = self._size("n_seq_max", SLOTS), self._size("n_ctx", CONTEXT)
        if together > slots or together * longest > context:
            raise InvalidRunError(
                f"{together} requests of {longest} tokens at once do not fit into {slots} slots and {context} tokens"
            )
        return super()._load(requests, arrivals)

    def watch(self) -> Watching:
        """Its passes are read off the arrivals where it is known how they come about."""
        if "speculative" in self._told:
            return Unwatched(SPECULATIVE)
        slots, tokens = self._size("n_seq_max", 0), self._size("n_ubatch", 0)
        if not slots or not tokens:
            return Unwatched(UNTOLD_SIZE)
        if slots > tokens:
            return Unwatched(f"with {slots} slots a pass of next tokens may be cut: one takes {tokens} tokens")
        return ByArrivals(tokens)

    def _size(self, name: str, untold: int) -> int:
        """As the timed server said, whatever it was given beside our own arguments."""
        return int(str(self._told.get(name, untold)))


class RecordedSession(LlamaCppSession):
    """A llama-server whose second start has the recorder."""

    def __init__(self, engine: LlamaCppEngine, spec: LaunchSpec, server: Server, attachment: Attachment) -> None:
        super().__init__(engine, spec, server, attachment)
        self._recording = recording(spec)
        self._moe_layers = parse_config(spec.files.config).moe_layers

    def route(self, requests: Sequence[Request], completions: Sequence[Completion]) -> tuple[RoutingRows, ...]:
        """The same tokens through llama.cpp itself, recorded."""
        return tuple(map(self._route, requests, completions)) if self._moe_layers else ()

    def _routed_by(self) -> str:
        return "the recorder before llama-server"

    def _route(self, request: Request, completion: Completion) -> RoutingRows:
        traced = self._trace(forced_tokens(request, completion))
        return RoutingRows(request.id, traced.experts, traced.greedy_unended[len(request.prompt) - 1 :])

    def score(self, continuations: Sequence[Continuation]) -> list[Score]:
        """From the recorded log-probabilities of the whole text."""
        return [self._score(one) for one in continuations]

    def _score(self, one: Continuation) -> Score:
        tokens = [*one.context, *one.continuation]
        traced, start = self._trace(tokens), len(one.context)
        known = [value for value in traced.log_probabilities[start:] if value is not None]
        if len(known) != len(one.continuation):
            raise InvalidRunError(
                f"{len(known)} log-probabilities for a continuation of {len(one.continuation)} tokens"
            )
        return Score(sum(known), traced.greedy[start - 1 : -1] == tuple(one.continuation))

    def _trace(self, tokens: Sequence[int]) -> TracedPass:
        """One sequence through the recording server, alone: what the trace grew by is its own."""
        self.serve(self._recording)
        path = Path(self.server.fill(TRACE))
        size = path.stat().st_size if path.exists() else 0
        body: dict[str, JsonValue] = {"model": self._served.name, "prompt": list(tokens), "max_tokens": 1}
        with self.living():
            self._http.complete(body)
        with path.open("rb") as trace:
            trace.seek(size)
            lines = trace.read().decode().splitlines()
        return whole_sequence(parse_trace(lines, self._moe_layers), tokens)


ENGINE = LlamaCppEngine()
