"""What vLLM's kernels for mxfp4 experts add to their matrices: they want whole tiles, gpt-oss's 2880 is none of most.

The padding lies in memory as zeros and is read with the rest. It is no byte that the model needs, so no utilisation
counts it: it stands in the record, and only what is held against hardware counters adds it. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from moe_cap.architecture import Architecture, MoeFfn, Part
from moe_cap.architecture.weights import Weight
from moe_cap.precision import StoragePlan

TILES = {
    "MARLIN": (256, 128), "BATCHED_MARLIN": (256, 128),
    "FLASHINFER_CUTLASS_MXFP4_BF16": (128, 128), "FLASHINFER_CUTLASS_MXFP4_MXFP8": (128, 128),
    "CUTLASS_MXFP4_MXFP4": (128, 128), "DEEPGEMM_MXFP4": (128, 128),
    "TRITON": (1, 64), "TRITON_UNFUSED": (1, 64),
    "B12X_MXFP4_MXFP8": (1, 1), "B12X_MXFP4_BF16": (1, 1),
    "CPU": (32, 32), "EMULATION": (32, 32),
}  # fmt: skip
"""Multiples that a backend rounds the hidden and the experts' size up to, on NVIDIA's devices and processors.

Source: vLLM 0.26 to 0.33, layers/fused_moe/oracle/mxfp4.py, `mxfp4_round_up_hidden_size_and_intermediate_size`. Only
what all of these agree on stands here: FlashInfer's TRTLLM rounds the experts to 256 in 0.26 and to 128 in 0.33.

Of Triton this is not all on Hopper, whose layout of the scales pads them further (rows to 256, groups along a row to 4:
`_swizzle_mxfp4`, `HopperMXScaleLayout`) and whose biases are fp32: up to 0.5 % more bytes of gpt-oss's experts in
memory. Which of them a kernel reads depends on its tiles, so that is not modelled.
"""


@dataclass(frozen=True, slots=True)
class ExpertPadding:
    """One kernel's padding of one model's experts; [MoE layers] in their order.

    Attributes:
        hidden_size: as padded.
        expert_size: as padded.
        expert_bytes: of one expert of each layer, as the checkpoint stores it.
        added_bytes: what is read beside them.
    """

    backend: str
    hidden_size: int
    expert_size: int
    expert_bytes: tuple[int, ...]
    added_bytes: tuple[int, ...]

    @property
    def share(self) -> float:
        """Added over stored bytes."""
        return sum(self.added_bytes) / sum(self.expert_bytes)

    def __str__(self) -> str:
        sizes = f"hidden size to {self.hidden_size}, experts to {self.expert_size}"
        return f"{self.backend} pads {sizes}: {self.share:+.1%} bytes of experts, in no utilisation"


def expert_padding(moe_backend: str, arch: Architecture, storage: StoragePlan) -> ExpertPadding | None:
    """The padding behind the record's `moe_backend`, as in "MARLIN Mxfp4".

    None where nothing is padded, where the experts are not in mxfp4, and for a backend that is not known here.
    """
    backend, _, weights = moe_backend.rpartition(" ")
    if weights.lower() != "mxfp4" or backend not in TILES or not arch.moe_blocks:
        return None
    tiles = TILES[backend]
    hidden_size, expert_size = (
        -(-size // tile) * tile for size, tile in zip(_sizes(arch.moe_blocks[0]), tiles, strict=True)
    )
    stored, padded = [], []
    for layer in arch.layers:
        if isinstance(layer.feed_forward, MoeFfn):
            own = _sizes(layer.feed_forward)
            stored.append(_bytes(layer.path, layer.feed_forward, storage, own))
            padded.append(_bytes(layer.path, layer.feed_forward, storage, (hidden_size, expert_size)))
    added = tuple(size - own for size, own in zip(padded, stored, strict=True))
    return ExpertPadding(backend, hidden_size, expert_size, tuple(stored), added) if any(added) else None


def _sizes(moe: MoeFfn) -> tuple[int, int]:
    """Hidden size and the experts' own, by the matrix that leads back: (hidden, expert)."""
    back = next(weight for weight in moe.expert if _leads_back(weight) and weight.is_matrix)
    return back.shape[0], back.shape[1]


def _leads_back(weight: Weight) -> bool:
    return "down_proj" in weight.name or weight.name.endswith(".w2.weight")


def _bytes(layer: str, moe: MoeFfn, storage: StoragePlan, sizes: tuple[int, int]) -> int:
    """Bytes of one expert of a layer, were it of these sizes."""
    (hidden_size, expert_size), own_expert = sizes, _sizes(moe)[1]
    total = 0
    for weight in moe.expert:
        module = f"{layer}.{weight.name}".rpartition(".")[0]
        if _leads_back(weight):
            outputs, inputs = hidden_size, expert_size
        else:
            outputs, inputs = weight.shape[0] // own_expert * expert_size, hidden_size
        shape = (outputs, inputs) if weight.is_matrix else (outputs,)
        total += storage.format_of(Part.EXPERTS, module, weight).bytes_of(shape)
    return total
