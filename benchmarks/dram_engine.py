"""vLLM's arguments for passes that are looked at. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.dram_account import Cell
from benchmarks.shapes import Shape
from moe_cap.errors import EngineStartError
from moe_cap.measure.engines.vllm_kernels import MOE_BACKEND, asked_backend

ANSWER_ROOM = 128
"""Tokens of a sequence behind its prompt, at most."""
BATCHED_TOKENS = 8192
MODELLED_MXFP4 = "marlin"
"""The kernel for mxfp4 experts that tells its routing and whose tiles `vllm_padding.py` knows; vLLM's own choice on an
H100, Triton's, does neither."""
SILENT_MXFP4 = "triton"


def engine_arguments(model: Path, cells: Sequence[Cell], given: Sequence[str], *, rehearsal: bool) -> list[str]:
    """vLLM's arguments: every prompt of a prefill fits into one pass, and the experts are told."""
    longest = max(cell.tokens for cell in cells) + ANSWER_ROOM
    at_once = max([BATCHED_TOKENS, *(cell.batch * cell.tokens for cell in cells if cell.kind == "prefill")])
    returned = ["--enable-prefix-caching", "--enable-return-routed-experts"]
    recorded = ["--no-enable-prefix-caching", "--worker-cls", "moe_cap_vllm_recorder.RecordingWorker"]
    return [
        "--model", str(model), "--dtype", "bfloat16", "--skip-tokenizer-init", "--enforce-eager",
        "--no-async-scheduling", "--max-model-len", str(longest), "--max-num-batched-tokens", str(at_once),
        "--max-num-seqs", str(max(cell.batch for cell in cells)), *(recorded if rehearsal else returned), *given,
    ]  # fmt: skip


def with_modelled_kernel(shape: Shape, given: Sequence[str]) -> list[str]:
    """A person's arguments for counted passes, and before them the kernel where nobody chose one for mxfp4 experts.

    Raises:
        EngineStartError: the kernel that was chosen tells no routing, so that nothing could be predicted.
    """
    if shape.precision != "mxfp4":
        return list(given)
    asked = asked_backend(given)
    if asked == SILENT_MXFP4:
        raise EngineStartError(
            f"{MOE_BACKEND} {asked} routes by itself and tells no experts: take {MODELLED_MXFP4} or triton_unfused"
        )
    return list(given) if asked is not None else [MOE_BACKEND, MODELLED_MXFP4, *given]
