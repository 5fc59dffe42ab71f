"""A model in a chosen precision, for engines that run transformers in process.

int8 and int4 are weight-only, by torchao: the matrices of attention, experts and MLPs are stored in fewer bits and the
activations stay in bf16. Embedding, output head, routers, norms and biases stay in bf16 too.

transformers keeps the experts of a layer in one parameter of three dimensions, which quantisers that swap `nn.Linear`
never see, although most of a model's bytes are there. Here each expert becomes a matrix of its own, so that a step
reads the experts that it activates and no others: what S-MBU counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torchao.prototype.quantization.int4 import Int4OpaqueTensor
from torchao.quantization import Int8Tensor, PerRow
from transformers import AutoModelForCausalLM, PreTrainedModel

from moe_cap.errors import EngineStartError, UnknownPrecisionError
from moe_cap.precision.formats import BF16, FP32, WeightFormat, int4_grouped, int8_per_channel
from moe_cap.precision.names import ModuleNames
from moe_cap.precision.plan import LINEAR_PARTS, StoragePlan, StorageRule

INT4_GROUP = 128  # inputs that share a scale; a narrower matrix has one group per row
INT4_GROUPS = (32, 64, 128)  # what the kernel takes
KEPT_PLAIN = ModuleNames(("lm_head", "gate", "router", "shared_expert_gate"))

Store = Callable[[torch.Tensor], torch.Tensor]


def store_int8(weight: torch.Tensor) -> torch.Tensor:
    """An (out, in) matrix as symmetric int8 with an fp32 scale per output row, rounded to nearest."""
    stored = Int8Tensor.from_hp(weight, PerRow())
    return Int8Tensor(stored.qdata, stored.scale, stored.block_size, stored.dtype)  # without its zero points, all 0


def store_int4(weight: torch.Tensor) -> torch.Tensor:
    """An (out, in) matrix as asymmetric int4, a bf16 scale and zero point per group of `INT4_GROUP` inputs.

    Rounded to nearest without calibration, as tinygemm does it; the product runs in torch's packed int4 CPU kernel.

    Raises:
        EngineStartError: not on the CPU, or the matrix does not divide into groups.
    """
    if weight.device.type != "cpu":
        raise EngineStartError(f"int4 by transformers runs on the CPU only, not on {weight.device}: use another engine")
    inputs = weight.shape[1]
    group = min(INT4_GROUP, inputs)
    if group not in INT4_GROUPS or inputs % group:
        raise EngineStartError(f"int4 needs rows of 32, 64 or a multiple of {INT4_GROUP} values, not of {inputs}")
    return Int4OpaqueTensor.from_hp(weight, [1, group])


@dataclass(frozen=True, slots=True)
class Precision:
    """How a precision is loaded, and what it weighs.

    Attributes:
        dtype: of everything that is not quantised, and of the activations.
        storage: the exact format of each part, for the byte accounts.
        store: quantises one matrix; None where nothing is quantised.
    """

    dtype: torch.dtype
    storage: StoragePlan
    store: Store | None = None


def _weight_only(name: str, weight_format: WeightFormat, store: Store) -> Precision:
    rules = (StorageRule(BF16, modules=KEPT_PLAIN), StorageRule(weight_format, LINEAR_PARTS))
    return Precision(torch.bfloat16, StoragePlan(name, plain=BF16, rules=rules, compute_dtype="bf16"), store)


PRECISIONS: dict[str, Precision] = {
    "fp32": Precision(torch.float32, StoragePlan("fp32", plain=FP32, kv=FP32, compute_dtype="fp32")),
    "bf16": Precision(torch.bfloat16, StoragePlan("bf16", plain=BF16)),
    "int8": _weight_only("int8", int8_per_channel(scale_bits=32), store_int8),
    "int4": _weight_only("int4", int4_grouped(INT4_GROUP, scale_bits=16, zero_bits=16), store_int4),
}


def precision_named(name: str) -> Precision:
    """The precision of that name.

    Raises:
        UnknownPrecisionError: this module cannot load it.
    """
    try:
        return PRECISIONS[name]
    except KeyError:
        known = ", ".join(PRECISIONS)
        raise UnknownPrecisionError(f"transformers cannot load {name!r} here: expected one of {known}") from None


def load_model(
    model: str | Path, precision: str, *, revision: str | None = None, device: str = "cpu"
) -> PreTrainedModel:
    """A causal language model with its weights stored in `precision`, ready for inference.

    Args:
        model: a local folder, or an id on the Hub.
        precision: a name of `PRECISIONS`.
        revision: commit, branch or tag on the Hub.
        device: where it shall run; int4 packs its weights for the CPU.

    Raises:
        UnknownPrecisionError: no such precision.
        EngineStartError: the model's weights cannot be stored that way.
    """
    chosen = precision_named(precision)
    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        model, revision=revision, dtype=chosen.dtype, trust_remote_code=False, use_safetensors=True
    )
    loaded.to(torch.device(device)).eval().requires_grad_(False)
    if chosen.store is not None:
        quantise(loaded, chosen.store)
    return loaded


def quantise(model: PreTrainedModel, store: Store) -> None:
    """Store every matrix of the decoder layers that `KEPT_PLAIN` does not name by `store`, in place.

    Raises:
        EngineStartError: the experts are laid out in a way that this module does not know.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name not in KEPT_PLAIN:
            module.weight = _frozen(store(module.weight))
        elif _holds_experts(module):
            _quantise_experts(name, module, store)
    model.set_experts_implementation("eager")


def stored_tensors(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Every plain tensor of the weights: packed values, scales and zero points on their own, stored buffers too."""
    weights = dict(model.named_parameters())
    kept = model.state_dict().keys()
    for name, tensor in (weights | {name: buffer for name, buffer in model.named_buffers() if name in kept}).items():
        if hasattr(tensor, "__tensor_flatten__"):
            yield from ((f"{name}.{part}", getattr(tensor, part)) for part in tensor.__tensor_flatten__()[0])
        else:
            yield name, tensor


def weight_bytes(model: PreTrainedModel) -> int:
    """Bytes of all weights as they lie in memory."""
    return sum(tensor.nbytes for _, tensor in stored_tensors(model))


def _frozen(weight: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(weight, requires_grad=False)


def _holds_experts(module: nn.Module) -> bool:
    return any(parameter.ndim == 3 for parameter in module.parameters(recurse=False))


def _quantise_experts(name: str, experts: nn.Module, store: Store) -> None:
    """Replace each fused parameter by a list of matrices; the eager implementation indexes both alike."""
    if getattr(experts, "is_transposed", True):
        raise EngineStartError(f"{name} keeps its experts transposed: load this model in bf16, or in another engine")
    for parameter_name, fused in list(experts.named_parameters(recurse=False)):
        if fused.ndim == 3:
            delattr(experts, parameter_name)
            setattr(experts, parameter_name, nn.ParameterList(_frozen(store(matrix)) for matrix in fused.unbind()))
