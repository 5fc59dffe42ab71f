"""SGLang, as its stock server.

The timed pass runs on a server that knows nothing of us. For the routing pass it is started once more with
`--enable-return-routed-experts`; the same tokens go through its own interface as one prompt each. Its passes are read
off the arrivals and off its log, which lists those with prompts.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from moe_cap.architecture import Architecture, parse_config
from moe_cap.errors import InvalidRunError, ServerError
from moe_cap.measure.engines.base import Completion, EngineStep, LaunchSpec, Request, RoutingRows
from moe_cap.measure.engines.endpoint_session import Attachment
from moe_cap.measure.engines.launched import ServerEngine, ServerSession, package_version
from moe_cap.measure.engines.passes import or_unaligned
from moe_cap.measure.engines.server import HOME, PORT, Server
from moe_cap.measure.engines.sglang_log import IN_TURN, parse_prompt_passes, takes_turns
from moe_cap.measure.engines.stored_weights import check_method, effective_plan, held_bytes, launch_dtype
from moe_cap.measure.engines.teacher_forcing import forced_tokens
from moe_cap.measure.engines.turns import PromptPass, steps_of_turns
from moe_cap.measure.engines.watched import Unwatched, Watching
from moe_cap.measure.model_files import ModelFiles
from moe_cap.precision import StoragePlan

LOADED = re.compile(r"Load weight end\..*?quant=(?P<method>[\w-]+)")
ROUTED_AT_ONCE = 8
OTHERWISE = f"how SGLang forms its passes is known only where its settings say {dict(IN_TURN)}"


def generate_body(tokens: Sequence[int], prompt_tokens: int) -> dict[str, JsonValue]:
    """A request to /generate: one more token, the experts of every position, and what else could have been said.

    Args:
        tokens: prompt and output but the last token.
        prompt_tokens: of the timed request; log-probabilities are told from its last token on.
    """
    return {
        "input_ids": list(tokens),
        "sampling_params": {"max_new_tokens": 1, "temperature": 0, "ignore_eos": True},
        "return_routed_experts": True,
        "return_logprob": True,
        "logprob_start_len": prompt_tokens - 1,
        "top_logprobs_num": 1,
    }


def parse_experts(answer: Mapping[str, Any], architecture: Architecture) -> NDArray[np.int16]:
    """`meta_info.routed_experts`, [positions, MoE layers, top_k].

    Base64 of raw int32 [positions, layers, top_k], without a header; dense layers are there and left out
    (sglang/srt/state_capturer/routed_experts.py, 0.5.17 to 0.5.23).

    Raises:
        InvalidRunError: it is not there, or is no whole number of positions.
    """
    try:
        told = np.frombuffer(base64.b64decode(answer["meta_info"]["routed_experts"], validate=True), np.int32)
        every = told.reshape(-1, len(architecture.layers), architecture.top_k)
        if not len(every):
            raise ValueError("the field is empty")
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise InvalidRunError(f"SGLang returned no routed experts that can be read: {error!r}") from error
    return every[:, list(architecture.moe_layers)].astype(np.int16)


def parse_predicted(answer: Mapping[str, Any], output_tokens: int) -> tuple[int, ...]:
    """Greedy token after the prompt and after each output token but the last.

    Raises:
        ServerError: the answer does not tell them all.
    """
    try:
        places = answer["meta_info"]["input_top_logprobs"][-(output_tokens - 1) :] if output_tokens > 1 else []
        told = (*(int(place[0][1]) for place in places), int(answer["output_ids"][-1]))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise ServerError(f"SGLang does not tell what it would have said: {error!r}") from error
    if len(told) != output_tokens:
        raise ServerError(f"SGLang told {len(told)} of {output_tokens} predictions")
    return told


def loaded_method(said: str) -> str | None:
    """What the log calls the quantisation of the weights that were loaded; None for plain ones.

    Source: sglang/srt/model_executor/model_runner.py, `Load weight end` (0.5.23).
    """
    loaded = LOADED.search(said)
    return None if loaded is None else loaded["method"]


@dataclass(frozen=True, slots=True)
class ByTurns:
    """A server from just before a load; see `moe_cap.measure.engines.watched.Watching`.

    Attributes:
        listed: reads the passes with prompts off its log.
        before: number of them that were not of this load.
    """

    listed: Callable[[], Sequence[PromptPass]]
    before: int

    def steps(
        self, requests: Sequence[Request], completions: Sequence[Completion], _chunks: int
    ) -> tuple[tuple[EngineStep, ...], str | None]:
        """The passes of the load that has just ended, or () and why they are not known."""
        return or_unaligned(steps_of_turns(requests, completions, self.listed()[self.before :]))


class SglangEngine(ServerEngine):
    """The engine as a description; see `moe_cap.measure.engines.base.Engine`."""

    name = "sglang"

    def version_in(self, home: Path) -> str | None:
        """Of its package."""
        return package_version(home, "sglang")

    def launch_spec(self, files: ModelFiles, precision: str) -> LaunchSpec:
        """Its server by module; the prefix cache is off, because repetitions send the same prompts."""
        self.check_precision(precision)
        argv = (
            f"{HOME}/bin/python", "-m", "sglang.launch_server",
            "--model-path", str(files.folder), "--served-model-name", files.name,
            "--host", "127.0.0.1", "--port", PORT, "--dtype", launch_dtype(self.name, files, precision),
            "--disable-radix-cache", "--sampling-defaults", "openai",
        )  # fmt: skip
        return LaunchSpec(files=files, precision=precision, argv=argv, ready_url=f"http://127.0.0.1:{PORT}/health")

    def routing_spec(self, timed: LaunchSpec) -> LaunchSpec:
        """The timed server's specification with its own recording."""
        return replace(timed, argv=(*timed.argv, "--enable-return-routed-experts"))

    def session(self, spec: LaunchSpec, server: Server, attachment: Attachment) -> SglangSession:
        """Over a server that answers."""
        return SglangSession(self, spec, server, attachment)


class SglangSession(ServerSession):
    """A running SGLang; see `moe_cap.measure.engines.base.Session`."""

    def __init__(self, engine: SglangEngine, spec: LaunchSpec, server: Server, attachment: Attachment) -> None:
        super().__init__(engine, spec, server, attachment)
        self._routing_spec = engine.routing_spec(spec)
        method = loaded_method(server.said()) or self._about.arguments.get("quantization")
        check_method(engine.name, spec.files, spec.precision, None if method is None else str(method))

    def storage(self, architecture: Architecture) -> StoragePlan:
        """As asked or as stored, with the cache that the server said; it does not say which kernels unpack."""
        return effective_plan(super().storage(architecture), self.describe(), weight_only=False)

    def weights_bytes(self) -> float:
        """Every value of the checkpoint as asked or as stored."""
        return held_bytes(self._spec.files, self._spec.precision)

    def _routed_by(self) -> str:
        return "SGLang's --enable-return-routed-experts"

    def watch(self) -> Watching:
        """Its passes are told where its settings let them be, by the arrivals and the timed server's log."""
        if not takes_turns(self._about.arguments):
            return Unwatched(OTHERWISE)
        self.serve(self._spec)
        return ByTurns(self._listed, len(self._listed()))

    def _listed(self) -> tuple[PromptPass, ...]:
        return parse_prompt_passes(self.server.said())

    def route(self, requests: Sequence[Request], completions: Sequence[Completion]) -> tuple[RoutingRows, ...]:
        """The same tokens through SGLang itself, recorded."""
        architecture = parse_config(self._spec.files.config)
        if not architecture.moe_blocks:
            return ()
        self.serve(self._routing_spec)

        def one(request: Request, completion: Completion) -> RoutingRows:
            body = generate_body(forced_tokens(request, completion), len(request.prompt))
            answer = self._http.post("/generate", body)
            return RoutingRows(
                request.id, parse_experts(answer, architecture), parse_predicted(answer, len(completion.tokens))
            )

        with self.living(), ThreadPoolExecutor(ROUTED_AT_ONCE) as pool:
            return tuple(pool.map(one, requests, completions))


ENGINE = SglangEngine()
