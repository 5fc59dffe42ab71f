"""Configs to test with: small ones that use every switch of a family, and the published ones where they are at hand."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

from tests.architecture.bricks import DECODER, DEEPSEEK, DELTA, INDEXER, LATENT, QWEN_MOE
from tests.architecture.newer_configs import LABELLING, MULTIMODAL, NEWER, TWO_STACKS

__all__ = ["LABELLING", "MULTIMODAL", "TINY", "TWO_STACKS", "as_transformers_reads", "distinct_published", "published"]
SHARED = Path(os.environ.get("MOE_CAP_SHARED", Path(__file__).resolve().parents[3] / "shared"))

NEMOTRON: dict[str, Any] = {
    "model_type": "nemotron_h", "vocab_size": 96, "hidden_size": 48, "hybrid_override_pattern": "ME*-E",
    "num_hidden_layers": 5, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 40,
    "mamba_num_heads": 4, "mamba_head_dim": 8, "n_groups": 2, "ssm_state_size": 8, "n_routed_experts": 6,
    "num_experts_per_tok": 2, "moe_intermediate_size": 20, "moe_shared_expert_intermediate_size": 28,
    "n_shared_experts": 1, "use_mamba_kernels": False,
}  # fmt: skip
GEMMA: dict[str, Any] = {
    "head_dim": 8, "global_head_dim": 16, "num_global_key_value_heads": 1, "attention_k_eq_v": True,
    "enable_moe_block": True, "num_experts": 6, "top_k_experts": 2, "moe_intermediate_size": 20, "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
    "hidden_size_per_layer_input": 0,
}  # fmt: skip

TINY: dict[str, dict[str, Any]] = NEWER | {
    "llama": DECODER | {"model_type": "llama", "attention_bias": True, "mlp_bias": True},
    "llama-tied-mha": DECODER | {"model_type": "llama", "num_key_value_heads": None, "tie_word_embeddings": True},
    "mistral": DECODER | {"model_type": "mistral", "sliding_window": 16, "head_dim": 10},
    "qwen2": DECODER | {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 8, "max_window_layers": 2},
    "qwen3": DECODER | {"model_type": "qwen3", "head_dim": 16},
    "mixtral": DECODER | {"model_type": "mixtral", "num_local_experts": 6, "num_experts_per_tok": 2},
    "olmoe": DECODER | {"model_type": "olmoe", "num_experts": 7, "num_experts_per_tok": 2},
    "qwen2_moe": QWEN_MOE | {"model_type": "qwen2_moe", "shared_expert_intermediate_size": 36, "mlp_only_layers": [1]},
    "qwen3_moe": QWEN_MOE | {"model_type": "qwen3_moe", "head_dim": 16, "decoder_sparse_step": 2},
    "deepseek_v2": DEEPSEEK | {"model_type": "deepseek_v2", "topk_method": "greedy"},
    "deepseek_v2-lite": DEEPSEEK | {"model_type": "deepseek_v2", "q_lora_rank": None, "topk_method": "greedy"},
    "deepseek_v3": DEEPSEEK | {"model_type": "deepseek_v3", "num_nextn_predict_layers": 1, "attention_bias": True},
    "gpt_oss": DECODER | {
        "model_type": "gpt_oss", "head_dim": 16, "num_local_experts": 5, "num_experts_per_tok": 2, "sliding_window": 8,
    },
    "deepseek_v32": DEEPSEEK | INDEXER | {"model_type": "deepseek_v32"},
    "axk1": DEEPSEEK | {"model_type": "axk1"},
    "glm4_moe": DEEPSEEK | {"model_type": "glm4_moe", "use_qk_norm": True, "attention_bias": True, "head_dim": 16},
    "glm4_moe_lite": DEEPSEEK | {"model_type": "glm4_moe_lite"},
    "glm_moe_dsa": DEEPSEEK | INDEXER | {
        "model_type": "glm_moe_dsa", "index_topk_freq": 2, "index_skip_topk_offset": 1,
    },
    "solar_open": DEEPSEEK | {"model_type": "solar_open", "first_k_dense_replace": 0, "head_dim": 16},
    "dots1": DEEPSEEK | {"model_type": "dots1", "sliding_window": 8, "max_window_layers": 2, "head_dim": 16},
    "mimo_v2_flash": DECODER | {
        "model_type": "mimo_v2_flash", "head_dim": 16, "v_head_dim": 12, "n_routed_experts": 8, "sliding_window": 8,
        "moe_intermediate_size": 20, "num_experts_per_tok": 2,
    },
    "minimax": DECODER | {"model_type": "minimax", "num_local_experts": 6, "num_experts_per_tok": 2, "block_size": 8},
    "minimax_m2": DECODER | {
        "model_type": "minimax_m2", "num_local_experts": 6, "num_experts_per_tok": 2, "head_dim": 16,
    },
    "qwen3_next": QWEN_MOE | DELTA | {"model_type": "qwen3_next", "shared_expert_intermediate_size": 36},
    "qwen3_5_moe_text": QWEN_MOE | DELTA | {"model_type": "qwen3_5_moe_text", "shared_expert_intermediate_size": 36},
    "kimi_linear": DECODER | LATENT | {
        "model_type": "kimi_linear", "moe_intermediate_size": 20, "num_experts": 8, "num_experts_per_token": 3,
        "num_shared_experts": 1,
        "pad_token_id": 0,
        "linear_attn_config": {
            "num_heads": 2, "head_dim": 8, "short_conv_kernel_size": 4, "full_attn_layers": [4],
            "kda_layers": [1, 2, 3],
        },
    },
    "jamba": DECODER | {
        "model_type": "jamba", "num_experts": 4, "num_experts_per_tok": 2, "attn_layer_period": 4,
        "attn_layer_offset": 2, "mamba_d_state": 8, "mamba_dt_rank": 6, "use_mamba_kernels": False,
    },
    "nemotron_h": NEMOTRON,
    "nemotron_h-latent": NEMOTRON | {"moe_latent_size": 16, "attention_bias": True, "use_bias": True},
    "granitemoe": DECODER | {"model_type": "granitemoe", "num_local_experts": 4, "num_experts_per_tok": 2},
    "granitemoeshared": DECODER | {
        "model_type": "granitemoeshared", "num_local_experts": 4, "num_experts_per_tok": 2,
        "shared_intermediate_size": 28,
    },
    "granitemoe_swa": DECODER | {
        "model_type": "granitemoe_swa", "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8,
        "shared_intermediate_size": 0,
    },
    "granitemoehybrid": DECODER | {
        "model_type": "granitemoehybrid", "num_local_experts": 4, "num_experts_per_tok": 2, "mamba_n_heads": 12,
        "mamba_d_head": 8, "mamba_d_state": 8, "shared_intermediate_size": 28,
        "layer_types": ["mamba", "attention", "mamba", "mamba"],
    },
    "phimoe": DECODER | {
        "model_type": "phimoe", "num_local_experts": 4, "num_experts_per_tok": 2, "attention_bias": True,
        "lm_head_bias": True,
    },
    "ernie4_5_moe": DECODER | {
        "model_type": "ernie4_5_moe", "moe_num_experts": 6, "moe_k": 2, "moe_intermediate_size": 20,
        "moe_num_shared_experts": 2, "moe_layer_start_index": 1, "moe_layer_end_index": 3, "use_bias": True,
    },
    "exaone_moe": DECODER | {
        "model_type": "exaone_moe", "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 20,
        "num_shared_experts": 1, "sliding_window": 8, "sliding_window_pattern": 4, "first_k_dense_replace": 1,
        "head_dim": 16,
    },
    "flex_olmo": DECODER | {
        "model_type": "flex_olmo", "num_experts": 5, "num_experts_per_tok": 2, "pad_token_id": 0,
    },
    "afmoe": DECODER | {
        "model_type": "afmoe", "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 20, "head_dim": 16,
        "num_shared_experts": 1, "num_dense_layers": 1, "sliding_window": 8, "global_attn_every_n_layers": 2,
    },
    "hunyuan_v1_moe": DECODER | {"model_type": "hunyuan_v1_moe", "num_experts": 4, "moe_topk": 2, "head_dim": 16},
    "hy_v3": DECODER | {
        "model_type": "hy_v3", "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 20, "head_dim": 16,
        "num_shared_experts": 1,
    },
    "llama4_text": DECODER | {
        "model_type": "llama4_text", "num_local_experts": 4, "num_experts_per_tok": 1, "intermediate_size_mlp": 72,
        "interleave_moe_layer_step": 2, "attention_chunk_size": 8, "head_dim": 16, "pad_token_id": 0,
    },
    "lfm2_moe": DECODER | {
        "model_type": "lfm2_moe", "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 20,
        "num_dense_layers": 1, "conv_bias": True, "layer_types": ["conv", "conv", "full_attention", "conv"],
    },
    "longcat_flash": LATENT | {
        "model_type": "longcat_flash", "vocab_size": 96, "hidden_size": 48, "num_layers": 2, "num_attention_heads": 4,
        "ffn_hidden_size": 40, "expert_ffn_hidden_size": 20, "n_routed_experts": 6, "zero_expert_num": 3, "moe_topk": 4,
        "max_position_embeddings": 256,
    },
    "minimax_m3_vl_text": DECODER | {
        "model_type": "minimax_m3_vl_text", "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 16,
        "dense_intermediate_size": 60, "shared_intermediate_size": 28, "n_shared_experts": 1,
        "moe_layer_freq": [0, 1, 1, 1],
        "sparse_attention_config": {
            "sparse_num_index_heads": 2, "sparse_index_dim": 8, "sparse_block_size": 4, "sparse_topk_blocks": 2,
            "sparse_local_block": 1, "sparse_attention_freq": [0, 1, 1, 1],
        },
    },
    "gemma4_text": DECODER | GEMMA | {"model_type": "gemma4_text"},
    "gemma4_text-dense": DECODER | GEMMA | {
        "model_type": "gemma4_text", "enable_moe_block": False, "hidden_size_per_layer_input": 6,
        "vocab_size_per_layer_input": 50, "num_kv_shared_layers": 2, "use_double_wide_mlp": True,
        "attention_k_eq_v": False,
    },
    "deepseek_v4": {
        "model_type": "deepseek_v4", "vocab_size": 96, "hidden_size": 48, "moe_intermediate_size": 20,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 16, "q_lora_rank": 12,
        "num_experts_per_tok": 2, "n_routed_experts": 6, "n_shared_experts": 1, "compress_ratios": [0, 4, 128, 4],
        "num_hash_layers": 1, "sliding_window": 8, "o_groups": 2, "o_lora_rank": 10, "index_n_heads": 2,
        "index_head_dim": 8, "index_topk": 3, "qk_rope_head_dim": 8, "max_position_embeddings": 256,
    },
    "mellum": QWEN_MOE | {
        "model_type": "mellum", "head_dim": 16, "sliding_window": 8, "mlp_layer_types": ["dense", *["sparse"] * 3],
        "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
    },
    "bailing_hybrid": DECODER | LATENT | {
        "model_type": "bailing_hybrid", "moe_intermediate_size": 20, "num_experts": 8, "num_experts_per_token": 2,
        "num_shared_experts": 1, "first_k_dense_replace": 1, "head_dim": 12, "q_lora_rank": None, "pad_token_id": 0,
        "layer_group_size": 2, "num_expert_group": 2, "topk_group": 1,
    },
    "cohere2_moe": DECODER | {
        "model_type": "cohere2_moe", "num_experts": 5, "num_experts_per_tok": 2, "num_shared_experts": 1,
        "first_k_dense_replace": 1, "sliding_window": 8, "prefix_dense_intermediate_size": 60, "pad_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 2, "head_dim": 16,
    },
    "jetmoe": DECODER | {
        "model_type": "jetmoe", "num_local_experts": 4, "num_experts_per_tok": 2, "kv_channels": 12,
        "num_key_value_heads": 2,
    },
    "aria_text": DECODER | {
        "model_type": "aria_text", "moe_num_experts": 4, "moe_topk": 2, "moe_num_shared_experts": 2, "head_dim": 16,
    },
    "dbrx": {
        "model_type": "dbrx", "d_model": 48, "n_heads": 4, "n_layers": 2, "vocab_size": 96, "max_seq_len": 256,
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 500000},
        "ffn_config": {"ffn_hidden_size": 40, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 48},
    },
}  # fmt: skip


UNREAD = {
    "architectures",
    "use_cache",
    "max_position_embeddings",
    "pretraining_tp",
    "ep_size",
    "return_dict",
    "rope_theta",
}


@cache
def published() -> dict[str, dict[str, Any]]:
    """Published configs by file name; empty where the shared data is not at hand."""
    files = sorted((SHARED / "data" / "model_configs").glob("*.json"))
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


def distinct_published() -> dict[str, dict[str, Any]]:
    """Published configs whose language models differ, whatever they are quantised to."""
    first: dict[str, str] = {}
    for name, config in published().items():
        text = config.get("text_config") or config
        sizes = {key: value for key, value in text.items() if isinstance(value, int | list) and "token_id" not in key}
        sizes = {key: value for key, value in sizes.items() if not (value is False or key in UNREAD)}
        first.setdefault(config["model_type"] + json.dumps(sizes, sort_keys=True), name)
    return {name: published()[name] for name in first.values()}


def as_transformers_reads(config: dict[str, Any]) -> dict[str, Any]:
    """What holds the language model there: Step-3.7's flat config goes in a `text_config`, Qwen3-Omni is a thinker."""
    if config["model_type"] == "step3p7" and "text_config" not in config:
        return {"model_type": "step3p7", "text_config": config}
    if config["model_type"] == "qwen3_omni_moe":
        return {"model_type": "qwen3_omni_moe_thinker"} | config["thinker_config"]
    return config
