"""Weight-only storage: what is stored weighs what the accounts say, and computes nearly what it did."""

from pathlib import Path

import pytest
import torch

from moe_cap.architecture import read_config
from moe_cap.errors import EngineStartError, UnknownPrecisionError
from moe_cap.measure.engines.quantise import (
    PRECISIONS,
    load_model,
    precision_named,
    quantise,
    store_int4,
    store_int8,
    stored_tensors,
    weight_bytes,
)
from moe_cap.precision import stored_bytes
from tests.measure.tiny_models import MOE_FAMILIES, build_model, write_model

pytestmark = pytest.mark.model

TRANSPOSED = {"gpt_oss"}
FAMILIES = [family for family in MOE_FAMILIES if family not in TRANSPOSED]


@pytest.mark.parametrize("family", FAMILIES)
def test_loaded_weights_weigh_what_the_storage_plan_says(family: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path, family)
    arch = read_config(folder / "config.json")
    for precision in PRECISIONS:
        assert weight_bytes(load_model(folder, precision)) == stored_bytes(arch, PRECISIONS[precision].storage), (
            precision
        )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("precision", "tolerance"), [("int8", 0.02), ("int4", 0.3)])
def test_quantised_model_computes_nearly_the_same_as_its_dequantised_weights_would(
    family: str, precision: str, tolerance: float
) -> None:
    """One layer's experts at a time: through a whole random model a single changed expert choice moves everything."""
    model = build_model(family, torch.bfloat16)
    experts = [
        module for module in model.modules() if hasattr(module, "gate_up_proj") and hasattr(module, "is_transposed")
    ]
    hidden = torch.randn(6, model.config.hidden_size, dtype=torch.bfloat16, generator=torch.Generator().manual_seed(0))
    chosen, shares = torch.tensor([[0, 1], [1, 2], [7, 3], [4, 5], [6, 0], [2, 7]]), torch.full((6, 2), 0.5)
    with torch.no_grad():
        before = [module(hidden, chosen, shares.bfloat16()) for module in experts]
        store = PRECISIONS[precision].store
        assert store is not None
        quantise(model, store)
        after = [module(hidden, chosen, shares.bfloat16()) for module in experts]
    for expected, found in zip(before, after, strict=True):
        assert float((expected - found).float().norm() / expected.float().norm()) < tolerance


@pytest.mark.parametrize("family", FAMILIES)
def test_no_expert_is_left_in_bf16(family: str) -> None:
    model = build_model(family, torch.bfloat16)
    quantise(model, store_int4)
    left = [name for name, tensor in stored_tensors(model) if tensor.ndim == 2 and tensor.dtype == torch.bfloat16]
    assert not [name for name in left if "experts" in name and "shared_expert_gate" not in name]
    assert any("lm_head" in name for name in left)


def test_transposed_experts_are_refused() -> None:
    with pytest.raises(EngineStartError, match="transposed"):
        quantise(build_model("gpt_oss", torch.bfloat16), store_int8)


def test_precision_nobody_can_load_is_refused_by_name() -> None:
    with pytest.raises(UnknownPrecisionError, match="fp4"):
        precision_named("fp4")


@pytest.mark.parametrize("inputs", [48, 160])
def test_matrix_without_whole_groups_is_refused(inputs: int) -> None:
    with pytest.raises(EngineStartError, match=str(inputs)):
        store_int4(torch.zeros(32, inputs, dtype=torch.bfloat16))


@pytest.mark.parametrize("inputs", [32, 64, 128, 256])
def test_int4_errs_by_half_a_step_at_most(inputs: int) -> None:
    """The step of a group is (max - min) / 15; bf16 scales and zero points add a little."""
    weight = torch.randn(64, inputs, generator=torch.Generator().manual_seed(1)).bfloat16()
    found = torch.nn.functional.linear(torch.eye(inputs, dtype=torch.bfloat16), store_int4(weight)).T
    groups = weight.float().unflatten(1, (-1, min(128, inputs)))
    steps = (groups.amax(-1, keepdim=True) - groups.amin(-1, keepdim=True)) / 15
    errors = (found.float().unflatten(1, (-1, min(128, inputs))) - groups).abs()
    assert float((errors / steps).max()) < 0.6


def test_int8_errs_by_half_a_step_at_most() -> None:
    weight = torch.randn(64, 96, generator=torch.Generator().manual_seed(1))
    errors = (store_int8(weight).dequantize() - weight).abs()
    assert float((errors / (weight.abs().amax(1, keepdim=True) / 127)).max()) < 0.51
