"""Which engine a server is, by its own words, and what it tells of itself. Pure, but for what it asks beside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import JsonValue

from moe_cap.errors import ServerError
from moe_cap.measure.engines.dtypes import PRECISIONS
from moe_cap.measure.publishable import publishable
from moe_cap.metrics.parallelism import Parallelism
from moe_cap.result import EngineRecord

VOLATILE = frozenset({"random_seed", "max_total_num_tokens", "max_req_input_len"})
"""What SGLang tells otherwise after every start: it draws a seed, and measures the memory that is left."""


@dataclass(frozen=True, slots=True)
class About:
    """How the server described itself; `name` is None when no engine was recognised.

    Attributes:
        arguments: as it tells them; what of them is published, `moe_cap.measure.publishable` decides.
        keeps_connections: whether a connection lives on after a stream, as the server announces.
        parallel: over how many devices it is spread, and how; None where it does not tell.
        compute_dtype, kv_dtype: None where it does not tell.
    """

    name: str | None
    version: str | None
    arguments: Mapping[str, JsonValue] = field(default_factory=dict)
    keeps_connections: bool = True
    parallel: Parallelism | None = None
    compute_dtype: str | None = None
    kv_dtype: str | None = None

    def fits(self, record: EngineRecord) -> bool:
        """Whether a published record may be of this server, started anew or not.

        It is of another one only where both told what they are: a server that is gone or slow tells nothing.
        """
        if self.name is None or record.version is None:
            return True
        lasting = {name: value for name, value in self.arguments.items() if name not in VOLATILE}
        same = all(record.arguments.get(name) == value for name, value in publishable(lasting).items())
        return same and (self.name, self.version) == (record.name, record.version)


NOBODY = About(None, None)
"""A server that no fingerprint fits."""


class Beside(Protocol):
    """What else a server may be asked."""

    def owners(self) -> frozenset[str]:
        """Who owns its models, by /v1/models; raises ServerError where it does not answer as such a server does."""

    def metrics(self) -> str:
        """Prometheus text of /metrics; raises ServerError where there is none."""


class Describe(Protocol):
    """Turns an engine's own answer into `About`; None when it is another engine's."""

    def __call__(self, answer: dict[str, Any], beside: Beside) -> About | None:
        """Read one answer."""


def _vllm(answer: dict[str, Any], beside: Beside) -> About | None:
    """GET /version of vLLM has one key, and so has trtllm-serve's: its models or its counters must bear its name."""
    if set(answer) != {"version"} or not _says_vllm(beside):
        return None
    return About("vllm", str(answer["version"]))


def _says_vllm(beside: Beside) -> bool:
    try:
        return "vllm" in beside.owners() or "vllm:" in beside.metrics()
    except ServerError:
        return False


def _sglang(answer: dict[str, Any], beside: Beside) -> About | None:
    """GET /get_server_info of SGLang: its effective arguments, flat, and the version."""
    if "version" not in answer or "tp_size" not in answer:
        return None
    plain = {name: value for name, value in answer.items() if isinstance(value, str | int | float | bool)}
    compute = PRECISIONS.get(str(plain.get("dtype")))
    cache = str(plain.get("kv_cache_dtype", "auto"))
    return About(
        "sglang",
        str(answer["version"]),
        plain,
        parallel=_sglang_parallelism(plain),
        compute_dtype=compute,
        kv_dtype=compute if cache == "auto" else PRECISIONS.get(cache, cache),
    )


def _sglang_parallelism(told: Mapping[str, JsonValue]) -> Parallelism:
    """Its sizes in our words.

    With data-parallel attention its `tp_size` counts all ranks of a stage, and attention is cut into `tp_size /
    dp_size` (sglang/srt/layers/dp_attention.py, `compute_dp_attention_world_info`); without, `dp_size` multiplies it.

    Raises:
        InvalidInputError: the sizes do not fit each other.
    """
    tp, ep, dp, pp = (int(str(told.get(f"{kind}_size", 1))) for kind in ("tp", "ep", "dp", "pp"))
    return Parallelism(tp=tp // dp if told.get("enable_dp_attention") else tp, ep=ep, dp=dp, pp=pp)


def _llama_cpp(answer: dict[str, Any], beside: Beside) -> About | None:
    """GET /props of llama-server, which says that it keeps connections and closes each after a stream (b11434)."""
    if "build_info" not in answer:
        return None
    kept = ("total_slots", "model_path", "n_ctx")
    arguments = {name: answer[name] for name in kept if name in answer}
    return About("llama-cpp", str(answer["build_info"]), arguments, keeps_connections=False)


FINGERPRINTS: tuple[tuple[str, Describe], ...] = (
    ("/get_server_info", _sglang),
    ("/props", _llama_cpp),
    ("/version", _vllm),
)
"""Where each engine tells about itself, below the server's root."""
