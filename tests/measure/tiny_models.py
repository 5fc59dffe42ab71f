"""Tiny random models of every family, written to a folder as a checkpoint with a tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedTokenizerFast

VOCABULARY = 320
COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
    "initializer_range": 0.3,
}  # fmt: skip
DEEPSEEK: dict[str, Any] = {
    **COMMON, "num_key_value_heads": 4, "intermediate_size": 128, "moe_intermediate_size": 32, "n_routed_experts": 8,
    "num_experts_per_tok": 2, "n_shared_experts": 1, "first_k_dense_replace": 1, "n_group": 4, "topk_group": 2,
    "kv_lora_rank": 32, "q_lora_rank": 32, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 16,
    "head_dim": 16,
}  # fmt: skip
FEW = {"num_experts_per_tok": 2, "intermediate_size": 64}
PLAIN_ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
EXPERTS = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 64, "intermediate_size": 128}


CONFIGS: dict[str, tuple[type[PreTrainedConfig], dict[str, Any]]] = {
    "qwen3_moe": (transformers.Qwen3MoeConfig, {**COMMON, **EXPERTS, "head_dim": 16, "norm_topk_prob": True}),
    "qwen2_moe": (transformers.Qwen2MoeConfig, {**COMMON, **EXPERTS, "shared_expert_intermediate_size": 64}),
    "mixtral": (transformers.MixtralConfig, {**COMMON, **FEW, "num_local_experts": 8}),
    "olmoe": (transformers.OlmoeConfig, {**COMMON, **FEW, "num_experts": 8}),
    "deepseek_v2": (transformers.DeepseekV2Config, {**DEEPSEEK, "topk_method": "group_limited_greedy"}),
    "deepseek_v3": (transformers.DeepseekV3Config, DEEPSEEK),
    "gpt_oss": (
        transformers.GptOssConfig,
        {**COMMON, **FEW, "num_local_experts": 8, "head_dim": 16, "sliding_window": 16, "rope_parameters": PLAIN_ROPE},
    ),
    "qwen3": (transformers.Qwen3Config, {**COMMON, "intermediate_size": 128, "head_dim": 16}),
}


MOE_FAMILIES = [name for name in CONFIGS if name != "qwen3"]


def write_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(
        ["the quick brown fox jumps over the lazy dog, and two and two are four"] * 4, trainer
    )
    end = "<|endoftext|>"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, bos_token=end, pad_token=end).save_pretrained(
        folder
    )


def build_model(family: str, dtype: torch.dtype = torch.float32) -> Any:
    kind, settings = CONFIGS[family]
    config = kind(**settings)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    model.generation_config.eos_token_id = 0
    return model


def write_model(folder: Path, family: str = "qwen3_moe") -> Path:
    build_model(family).save_pretrained(folder)
    write_tokenizer(folder)
    return folder
