"""What vLLM's kernels for mxfp4 experts add, by the published shape of gpt-oss-20b."""

from __future__ import annotations

from dataclasses import replace

import pytest

from moe_cap.architecture import Architecture, parse_config
from moe_cap.measure.engines.vllm_padding import TILES, expert_padding
from moe_cap.metrics.footprint import expert_bytes
from moe_cap.precision import StoragePlan, parse_quantization, uniform_storage

GPT_OSS: dict[str, object] = {
    "model_type": "gpt_oss", "hidden_size": 2880, "intermediate_size": 2880, "num_hidden_layers": 2,
    "num_attention_heads": 64, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 201088,
    "num_local_experts": 32, "num_experts_per_tok": 4, "sliding_window": 128,
    "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]},
}  # fmt: skip


@pytest.fixture
def gpt_oss() -> tuple[Architecture, StoragePlan]:
    return parse_config(GPT_OSS), parse_quantization(GPT_OSS)


def test_marlin_reads_nine_percent_more_of_gpt_oss(gpt_oss: tuple[Architecture, StoragePlan]) -> None:
    padding = expert_padding("MARLIN Mxfp4", *gpt_oss)
    assert padding is not None
    assert (padding.hidden_size, padding.expert_size) == (3072, 2944)
    values = 3 * (3072 * 2944 - 2880 * 2880)
    biases = 2 * (2944 - 2880) + (3072 - 2880)
    assert padding.added_bytes == (values * 4.25 / 8 + biases * 2,) * 2
    assert "MARLIN pads hidden size to 3072, experts to 2944: +9.0%" in str(padding)


@pytest.mark.parametrize("backend", sorted(TILES))
def test_the_stored_size_is_the_accounting_s_and_padding_only_adds(
    backend: str, gpt_oss: tuple[Architecture, StoragePlan]
) -> None:
    arch, storage = gpt_oss
    padding = expert_padding(f"{backend} Mxfp4", arch, storage)
    if padding is not None:
        assert padding.expert_bytes == tuple(expert_bytes(layer, storage) for layer in arch.layers)
        assert min(padding.added_bytes) > 0
        assert padding.hidden_size % TILES[backend][0] == padding.expert_size % TILES[backend][1] == 0


@pytest.mark.parametrize(
    "told", ["TRITON Mxfp4", "B12X_MXFP4_BF16 Mxfp4", "HUMMING Mxfp4", "NEWER Mxfp4", "TRITON Unquantized", "None"]
)
def test_no_padding_where_none_is_known(told: str, gpt_oss: tuple[Architecture, StoragePlan]) -> None:
    assert expert_padding(told, *gpt_oss) is None


@pytest.mark.parametrize("told", ["FLASHINFER_TRTLLM_MXFP4_BF16 Mxfp4", "FLASHINFER_TRTLLM_MXFP4_MXFP8 Mxfp4"])
def test_a_kernel_that_pads_otherwise_in_another_version_says_no_number(
    told: str, gpt_oss: tuple[Architecture, StoragePlan]
) -> None:
    assert expert_padding(told, *gpt_oss) is None


def test_plain_experts_of_whole_tiles_have_none() -> None:
    arch = parse_config({**GPT_OSS, "hidden_size": 2048, "intermediate_size": 1024})
    assert expert_padding("MARLIN Mxfp4", arch, replace(uniform_storage("mxfp4"))) is None
