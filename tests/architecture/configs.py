"""Configs to test with: small ones that use every switch of a family, and the published ones where they are at hand."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

SHARED = Path(os.environ.get("MOE_CAP_SHARED", Path(__file__).resolve().parents[3] / "shared"))

DECODER: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
}  # fmt: skip
LATENT: dict[str, Any] = {
    "kv_lora_rank": 24, "q_lora_rank": 20, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 12,
    "num_key_value_heads": 4,
}  # fmt: skip
QWEN_MOE: dict[str, Any] = DECODER | {"moe_intermediate_size": 20, "num_experts": 10, "num_experts_per_tok": 3}
DEEPSEEK: dict[str, Any] = DECODER | LATENT | {
    "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 20, "first_k_dense_replace": 1,
    "n_shared_experts": 2, "n_group": 2, "topk_group": 1,
}  # fmt: skip
INDEXER: dict[str, Any] = {"index_n_heads": 2, "index_head_dim": 16, "index_topk": 6}
DELTA: dict[str, Any] = {
    "head_dim": 16, "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
    "linear_value_head_dim": 12, "linear_conv_kernel_dim": 4,
}  # fmt: skip

TINY: dict[str, dict[str, Any]] = {
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
}  # fmt: skip


@cache
def published() -> dict[str, dict[str, Any]]:
    """Published configs by file name; empty where the shared data is not at hand."""
    files = sorted((SHARED / "data" / "model_configs").glob("*.json"))
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}
