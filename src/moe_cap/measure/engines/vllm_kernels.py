"""Which of vLLM's MoE kernels tell where they sent a token, and what stands in for those that do not. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

STAND_INS = {
    "TRITON Mxfp4": "triton_unfused",
    "FLASHINFER_TRTLLM_MXFP4_BF16 Mxfp4": "triton_unfused",
    "FLASHINFER_TRTLLM_MXFP4_MXFP8 Mxfp4": "triton_unfused",
    "FlashInfer TRTLLM Unquantized": "triton",
}
"""Backends whose first choice is a kernel that routes by itself, as the log names them, and the `--moe-backend` that
takes the experts from vLLM's router instead.

Only that router tells (`fused_moe/runner/moe_runner.py`, `_apply_quant_method`): of a kernel that routes by itself
vLLM 0.26 returns zeros, and 0.33 returns what FlashInfer's tell and refuses to start with Triton's. Which backend has
one stands in `backend_to_kernel_cls` of `fused_moe/oracle/mxfp4.py` and `unquantized.py`; `--moe-backend triton` takes
it for mxfp4 as well.
"""
COMPARED = ("moe_backend", "linear_kernels", "model_runner")
"""What decides how a pass computes, of what the log tells."""
MOE_BACKEND = "--moe-backend"


def telling_arguments(moe_backend: str | None) -> tuple[str, ...]:
    """What a server needs beside its own arguments so that its experts are told.

    Args:
        moe_backend: of the server without them, as its log says; None where it does not.
    """
    stand_in = STAND_INS.get(moe_backend or "")
    return () if stand_in is None else (MOE_BACKEND, stand_in)


def asked_backend(arguments: Sequence[str]) -> str | None:
    """The last `--moe-backend` among arguments, spelt as vLLM spells it; None where it chooses by itself."""
    found = None
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name.replace("_", "-") == MOE_BACKEND:
            found = value if equals else next(iter(arguments[place + 1 :]), "")
    return None if found is None else found.lower().replace("-", "_")


def otherwise(timed: Mapping[str, JsonValue], recording: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """What a recording server said otherwise than the timed one, as the record has it; empty where they agree."""
    return {f"routing_pass_{name}": recording.get(name) for name in COMPARED if recording.get(name) != timed.get(name)}
