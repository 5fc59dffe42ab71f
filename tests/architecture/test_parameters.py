"""Parameters by part and by layer equal the model built from the config on the meta device, to the parameter."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from moe_cap.architecture import FAMILIES, Architecture, Part, parse_config
from tests.architecture import meta_model
from tests.architecture.configs import (
    LABELLING,
    MULTIMODAL,
    TINY,
    TWO_STACKS,
    as_transformers_reads,
    distinct_published,
    published,
)

READABLE = meta_model.KNOWN & set(FAMILIES)
CONFIGS = (
    TINY
    | MULTIMODAL
    | TWO_STACKS
    | LABELLING
    | {
        name: as_transformers_reads(config)
        for name, config in distinct_published().items()
        if config["model_type"] in READABLE
    }
)


def by_block(arch: Architecture) -> dict[str, dict[str, int]]:
    """Ours by the end of the checkpoint's path; LongCat's blocks are two layers, a decoder's are in both stacks."""
    blocks: dict[str, Counter[str]] = {}
    for stack in arch.stacks:
        for layer, counted in zip(stack.layers, stack.parameters_by_layer(), strict=True):
            found = meta_model.LAYER.search(f"{layer.path}.")
            assert found is not None
            blocks.setdefault(found[1], Counter()).update(counted.as_dict())
    return {index: {part.value: counted[part.value] for part in Part} for index, counted in blocks.items()}


def drop_gates_of_zero_experts(config: dict[str, Any], parts: Counter[str], layers: dict[str, Counter[str]]) -> None:
    """transformers 5.23 allocates gate and up matrices for zero experts too, which no checkpoint holds."""
    phantom = config["zero_expert_num"] * 2 * config["expert_ffn_hidden_size"] * config["hidden_size"]
    parts["experts"] -= phantom * len(layers)
    for counted in layers.values():
        counted["experts"] -= phantom


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_equal_the_model_on_the_meta_device(name: str) -> None:
    config: dict[str, Any] = CONFIGS[name]
    arch = parse_config(config)
    parts, layers = meta_model.count(meta_model.build(as_transformers_reads(config)))
    if arch.model_type == "longcat_flash":
        drop_gates_of_zero_experts(config, parts, layers)
    ours = arch.parameters().as_dict()
    assert {part.value: ours[part.value] for part in Part} == {part.value: parts[part.value] for part in Part}
    assert ours["total"] == sum(parts.values())
    assert by_block(arch) == {
        index: {part.value: counted[part.value] for part in Part} for index, counted in layers.items()
    }


@pytest.mark.parametrize("name", TINY)
def test_parts_sum_to_the_total(name: str) -> None:
    arch = parse_config(TINY[name])
    for counted in (arch.parameters(), arch.mtp_parameters(), *arch.parameters_by_layer()):
        values = counted.as_dict()
        assert sum(values[part.value] for part in Part) == values["total"]
        assert values["active"] <= values["total"]


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [
        ("mistralai--Mixtral-8x22B-v0.1", 140.62, 39.2),
        ("mistralai--Mixtral-8x7B-v0.1", 46.70, 12.9),
        ("deepseek-ai--DeepSeek-V3", 671.03, 37.55),
        ("Qwen--Qwen3-30B-A3B", 30.53, 3.35),
    ],
)
def test_published_sizes(name: str, total: float, active: float) -> None:
    if name not in published():
        pytest.skip("MOE_CAP_SHARED has no model_configs")
    counted = parse_config(published()[name]).parameters()
    assert counted.total / 1e9 == pytest.approx(total, abs=0.005)
    assert counted.active / 1e9 == pytest.approx(active, abs=0.05)


def test_gpt_oss_names_its_active_size_without_the_embedding() -> None:
    if "openai--gpt-oss-120b" not in published():
        pytest.skip("MOE_CAP_SHARED has no model_configs")
    counted = parse_config(published()["openai--gpt-oss-120b"]).parameters()
    assert counted.total / 1e9 == pytest.approx(116.83, abs=0.005)
    assert (counted.active - counted.embedding) / 1e9 == pytest.approx(5.13, abs=0.005)


def test_qwen15_moe_size() -> None:
    counted = parse_config({
        "model_type": "qwen2_moe", "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 16,
        "num_key_value_heads": 16, "intermediate_size": 5632, "moe_intermediate_size": 1408, "vocab_size": 151936,
        "shared_expert_intermediate_size": 5632, "num_experts": 60, "num_experts_per_tok": 4,
    }).parameters()  # fmt: skip
    assert counted.total / 1e9 == pytest.approx(14.3, abs=0.05)
    assert counted.active / 1e9 == pytest.approx(2.7, abs=0.05)


def test_arctic_and_grok_are_as_large_as_published() -> None:
    arctic = parse_config({
        "model_type": "arctic", "hidden_size": 7168, "intermediate_size": 4864, "num_hidden_layers": 35,
        "num_attention_heads": 56, "num_key_value_heads": 8, "num_local_experts": 128, "num_experts_per_tok": 2,
        "vocab_size": 32000,
    }).parameters()  # fmt: skip
    assert (arctic.total, arctic.active) == (pytest.approx(480e9, rel=0.01), pytest.approx(17e9, rel=0.02))
    grok = parse_config({
        "model_type": "grok-1", "hidden_size": 6144, "intermediate_size": 32768, "num_hidden_layers": 64,
        "num_attention_heads": 48, "num_key_value_heads": 8, "num_experts": 8, "num_experts_per_tok": 2,
        "vocab_size": 131072,
    }).parameters()  # fmt: skip
    assert grok.total == pytest.approx(314e9, rel=0.01)


def test_dbrx_flops_at_two_thousand_tokens_per_second() -> None:
    counted = parse_config({
        "model_type": "dbrx", "d_model": 6144, "n_heads": 48, "n_layers": 40, "vocab_size": 100352,
        "attn_config": {"kv_n_heads": 8},
        "ffn_config": {"ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4},
    }).parameters()  # fmt: skip
    assert 2 * counted.active * 2000 == pytest.approx(144e12, rel=0.02)
    assert 2 * counted.total * 2000 == pytest.approx(528e12, rel=0.01)
