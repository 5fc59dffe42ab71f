"""Weights that a server loads as its checkpoint stores them: what it is told, what it must say, what they weigh.

A stock server casts a plain checkpoint to the dtype that it is given, and takes a quantised one in its own layout. What
it then calls the method is held against what was asked. Whether its kernels read the packed weights is another
question, because a device without the number format may be served by unpacking; what cannot be told becomes a warning
in the result.
"""

from __future__ import annotations

from dataclasses import replace

from moe_cap.errors import ConfigError, InvalidRunError
from moe_cap.measure.engines.dtypes import DTYPES
from moe_cap.measure.engines.launched import cast_bytes
from moe_cap.measure.model_files import ModelFiles
from moe_cap.offerings import ENGINES
from moe_cap.precision import StoragePlan, read_checkpoint, read_quantization, refuse_conversion
from moe_cap.result import EngineRecord

BYTES = {"bf16": 2, "fp32": 4}

WHOLE_NUMBERS = frozenset({"int4", "int8"})
METHODS: dict[str, frozenset[str]] = {
    "fp8": frozenset({"fp8", "mxfp4", "nvfp4"}),  # experts of DeepSeek-V4 and of NVIDIA's may be fp4 inside it
    "deepseek_v4_fp8": frozenset({"fp8", "mxfp4"}),
    "fbgemm_fp8": frozenset({"fp8"}),
    "modelopt_fp8": frozenset({"fp8"}),
    "mxfp4": frozenset({"mxfp4"}),
    "gpt_oss_mxfp4": frozenset({"mxfp4"}),
    "modelopt_fp4": frozenset({"nvfp4"}),
    "modelopt": frozenset({"fp8", "nvfp4", "mxfp4", *WHOLE_NUMBERS}),
    "modelopt_mixed": frozenset({"fp8", "nvfp4", "mxfp4", *WHOLE_NUMBERS}),
    "compressed-tensors": frozenset({"fp8", "nvfp4", "mxfp4", *WHOLE_NUMBERS}),
    "compressed_tensors": frozenset({"fp8", "nvfp4", "mxfp4", *WHOLE_NUMBERS}),
    "awq": WHOLE_NUMBERS, "awq_marlin": WHOLE_NUMBERS, "auto_awq": WHOLE_NUMBERS,
    "gptq": WHOLE_NUMBERS, "gptq_marlin": WHOLE_NUMBERS, "auto_gptq": WHOLE_NUMBERS,
    "auto-round": WHOLE_NUMBERS, "inc": WHOLE_NUMBERS, "moe_wna16": WHOLE_NUMBERS,
}  # fmt: skip
"""What servers call a quantisation, and the precisions whose checkpoints they call so.

Sources: vLLM 0.26 to 0.33, layers/quantization/__init__.py; SGLang 0.5.23, srt/layers/quantization/__init__.py.
"""


def stored_plan(files: ModelFiles) -> StoragePlan:
    """How the checkpoint says that it is stored; a quantised one has rules."""
    return read_quantization(files.folder, files.config)


def launch_dtype(engine: str, files: ModelFiles, precision: str) -> str:
    """The dtype that a server is started with: what was asked, or what a quantised checkpoint keeps the rest in.

    Raises:
        SubmissionError: the checkpoint is stored otherwise than was asked.
        ConfigError: it keeps the rest in a format that no server computes in.
    """
    stored = stored_plan(files)
    refuse_conversion(stored, precision, files.name, ENGINES[engine].as_stored)
    name = stored.plain.name if stored.rules else precision
    if name not in DTYPES:
        raise ConfigError(
            f"{files.name} keeps what is not quantised in {name}: no server computes in that", key="dtype"
        )
    return DTYPES[name]


def held_bytes(files: ModelFiles, precision: str) -> float:
    """All weights as the server holds them: the files' own bytes of a quantised checkpoint, else every value cast."""
    if stored_plan(files).rules:
        return float(read_checkpoint(files.folder).num_bytes)
    return cast_bytes(files, BYTES[precision])


def check_method(engine: str, files: ModelFiles, precision: str, method: str | None) -> None:
    """Hold what the server calls its quantisation against what was asked.

    Raises:
        InvalidRunError: it runs another one, none at all, or one that this code does not know.
    """
    if not stored_plan(files).rules:
        if method is not None:
            raise InvalidRunError(
                f"{engine} quantises the plain checkpoint of {files.name} by {method!r}, and {precision} was asked:"
                " leave that argument out, or take a checkpoint that is stored so"
            )
        return
    if method is None:
        raise InvalidRunError(
            f"{engine} does not say that it took {files.name} as quantised, and {precision} was asked: its weights may"
            " have been unpacked; look into engine.log, and take a version that knows this checkpoint's layout"
        )
    known = METHODS.get(method)
    if known is None or precision not in known:
        means = "is not known here" if known is None else f"means {' or '.join(sorted(known))}"
        raise InvalidRunError(f"{engine} runs {files.name} by {method!r}, which {means}, and {precision} was asked")


def effective_plan(stored: StoragePlan, record: EngineRecord, *, weight_only: bool) -> StoragePlan:
    """The plan with the cache that the engine said, and with the dtype that it computes in where it unpacks to that."""
    plan = stored if record.kv_dtype is None else stored.with_kv(record.kv_dtype)
    if weight_only and record.compute_dtype is not None:
        return replace(plan, compute_dtype=record.compute_dtype)
    return plan
