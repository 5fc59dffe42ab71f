"""Small configs of the families that came with transformers 5.1x to 5.23, and of language models in multimodal ones."""

from __future__ import annotations

from typing import Any

from tests.architecture.bricks import DECODER, DEEPSEEK, DELTA, INDEXER, LATENT, QWEN_MOE

WINDOWS: dict[str, Any] = {
    "sliding_window": 8,
    "layer_types": ["full_attention", "sliding_attention", "sliding_attention", "full_attention"],
}
SHARED_EXPERT: dict[str, Any] = {"shared_expert_intermediate_size": 28}
SPARSE_LATENT: dict[str, Any] = DECODER | LATENT | INDEXER | {
    "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 20, "n_shared_experts": 2,
    "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
}  # fmt: skip

QWEN4: dict[str, Any] = QWEN_MOE | DELTA | SHARED_EXPERT | {
    "model_type": "qwen4_exp_text", "indexer_n_heads": 2, "indexer_kv_heads": 1, "indexer_head_dim": 16,
    "indexer_budget": 4, "indexer_compress_ratio": 2, "hc_count": 3, "hc_lowrank": 5, "ple_layer_ids": [3, 1],
    "heads_per_ngram": 4, "ngram_vocab_size_base": 90, "eos_token_id": 1, "num_hidden_layers": 4,
}  # fmt: skip

NEWER: dict[str, dict[str, Any]] = {
    "laguna": QWEN_MOE | WINDOWS | SHARED_EXPERT | {
        "model_type": "laguna", "head_dim": 16, "num_attention_heads_per_layer": [4, 2, 4, 4], "attention_bias": True,
    },
    "laguna-per-element": QWEN_MOE | WINDOWS | SHARED_EXPERT | {
        "model_type": "laguna", "head_dim": 16, "gating": "per-element",
    },
    "kolibri1": QWEN_MOE | SHARED_EXPERT | {"model_type": "kolibri1", "head_dim": 16, "sliding_window": 8},
    "flint": QWEN_MOE | SHARED_EXPERT | {"model_type": "flint", "head_dim": 16, "sliding_window": 8},
    "beam": QWEN_MOE | {
        "model_type": "beam", "head_dim": 16, "sliding_window": 8, "num_hidden_layers": 5, "n_group": 2,
        "topk_group": 1,
    },
    "axk2": SPARSE_LATENT | {"model_type": "axk2", "gated_norm_rank": 5},
    "mistral4": DEEPSEEK | {"model_type": "mistral4"},
    "hy_v4": SPARSE_LATENT | {"model_type": "hy_v4", "hc_mult": 3, "pad_token_id": 0},
    "inkling_text": DECODER | {
        "model_type": "inkling_text", "head_dim": 16, "swa_num_attention_heads": 2, "swa_num_key_value_heads": 1,
        "swa_head_dim": 12, "sliding_window_size": 8, "local_layer_ids": [0, 2], "d_rel": 3, "rel_extent": 20,
        "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"], "moe_intermediate_size": 20, "n_routed_experts": 6,
        "num_experts_per_tok": 2, "n_shared_experts": 2, "num_mtp_layers": 2, "pad_token_id": 0,
    },
    "inkling2_text": DECODER | {
        "model_type": "inkling2_text", "head_dim": 16, "swa_num_attention_heads": 2, "swa_num_key_value_heads": 1,
        "swa_head_dim": 12, "sliding_window_size": 8, "d_rel": 3, "rel_extent": 20, "moe_intermediate_size": 20,
        "n_routed_experts": 6, "num_experts_per_tok": 2, "pad_token_id": 0, "intermediate_size": 20,
        "layer_types": ["hybrid_sliding", "hybrid", "hybrid_sliding", "hybrid"], "eos_token_id": 1,
    },
    "zaya": QWEN_MOE | {
        "model_type": "zaya", "head_dim": 16, "num_experts_per_tok": 1, "router_hidden_size": 10, "cca_time0": 3,
        "layer_types": ["hybrid", "hybrid_sliding", "hybrid", "hybrid"], "sliding_window": 8,
    },
    "qwen4_exp_text": QWEN4,
    "doge": DECODER | {
        "model_type": "doge", "is_moe": True, "num_experts": 16, "num_experts_per_tok": 3, "keep_window_size": 64,
    },
    "doge-dense": DECODER | {"model_type": "doge", "mlp_bias": True, "attention_bias": True, "keep_window_size": 64},
    "dots3_note_text": SPARSE_LATENT | {
        "model_type": "dots3_note_text", "head_dim": 24, "moe_shared_expert_intermediate_size": 28,
        "layer_types": ["full_attention", "full_attention", "sliding_attention", "full_attention"],
        "sliding_window": 8, "swa_num_attention_heads": 2, "swa_num_key_value_heads": 2, "swa_q_lora_rank": 10,
        "swa_kv_lora_rank": 14, "swa_head_dim": 20, "swa_qk_nope_head_dim": 12, "swa_v_head_dim": 6, "n_group": 1,
        "topk_group": 1, "pad_token_id": 0,
    },
}  # fmt: skip

TWO_STACKS: dict[str, dict[str, Any]] = {
    "switch_transformers": {
        "model_type": "switch_transformers", "vocab_size": 96, "d_model": 48, "d_kv": 10, "d_ff": 40, "num_layers": 4,
        "num_decoder_layers": 5, "num_heads": 4, "num_experts": 5, "num_sparse_encoder_layers": 2,
        "num_sparse_decoder_layers": 1, "router_bias": True,
    },
    "switch_transformers-all-sparse": {
        "model_type": "switch_transformers", "vocab_size": 96, "d_model": 48, "d_kv": 10, "d_ff": 40, "num_layers": 3,
        "num_decoder_layers": None, "num_heads": 4, "num_experts": 3, "num_sparse_encoder_layers": 0,
        "num_sparse_decoder_layers": 3,
    },
    "nllb-moe": {
        "model_type": "nllb-moe", "vocab_size": 96, "d_model": 48, "encoder_layers": 4, "decoder_layers": 3,
        "encoder_ffn_dim": 40, "decoder_ffn_dim": 36, "encoder_attention_heads": 4, "decoder_attention_heads": 6,
        "num_experts": 2, "encoder_sparse_step": 2, "decoder_sparse_step": 1, "router_bias": True,
        "max_position_embeddings": 256,
    },
}  # fmt: skip
LABELLING: dict[str, dict[str, Any]] = {
    "openai_privacy_filter": DECODER | {
        "model_type": "openai_privacy_filter", "head_dim": 16, "num_local_experts": 6, "num_experts_per_tok": 2,
        "sliding_window": 3, "pad_token_id": 0,
    },
}  # fmt: skip

MULTIMODAL: dict[str, dict[str, Any]] = {
    "qwen4_exp": {"model_type": "qwen4_exp", "text_config": QWEN4},
    "deepseek_ocr2": {
        "model_type": "deepseek_ocr2",
        "text_config": DECODER | {
            "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 20, "n_shared_experts": 2,
            "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"], "topk_method": "greedy",
        },
    },
    "unlimited_ocr": {
        "model_type": "unlimited_ocr",
        "text_config": DECODER | {
            "n_routed_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 20, "n_shared_experts": 2,
            "topk_method": "greedy", "sliding_window": 8,
        },
    },
    "ernie4_5_vl_moe": {
        "model_type": "ernie4_5_vl_moe",
        "text_config": DECODER | {
            "moe_num_experts": 6, "moe_k": 2, "moe_intermediate_size": [20, 8], "moe_num_shared_experts": 2,
            "use_bias": True, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2] * 3},
        },
    },
    "qwen3_omni_moe": {
        "model_type": "qwen3_omni_moe", "thinker_config": {"text_config": QWEN_MOE | {"head_dim": 16}},
    },
    "mistral_large4": {
        "model_type": "mistral_large4",
        "text_config": SPARSE_LATENT | {
            "q_lora_rank": None, "model_type": "mistral_large4_text", "indexer_types": ["full", "shared"] * 2,
            "kv_source_layers": [0, 0, 2, 2], "pad_token_id": 0,
        },
    },
    "muse_spark": {
        "model_type": "muse_spark", "audio_config": {"out_hidden_size": 48},
        "text_config": DECODER | {
            "num_local_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 20, "moe_hidden_size": 24,
            "head_dim": 16, "sliding_window": 8, "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
        },
    },
    "glm5_next": {
        "model_type": "glm5_next",
        "text_config": SPARSE_LATENT | {
            "qk_rope_head_dim": 0, "linear_head_dim": 8, "linear_num_heads": 3, "hc_mult": 3, "index_kpool": 2,
            "num_hidden_layers": 5, "mlp_layer_types": ["dense", *["sparse"] * 4], "pad_token_id": 0,
            "layer_types": ["linear_attention", "full_attention", "linear_attention", "full_attention",
                            "linear_attention"],
            "indexer_types": ["full", "full", "full", "shared", "full"],
        },
    },
    "diffusion_gemma": {
        "model_type": "diffusion_gemma",
        "text_config": DECODER | {
            "head_dim": 8, "global_head_dim": 16, "num_global_key_value_heads": 1, "num_experts": 6, "top_k_experts": 2,
            "moe_intermediate_size": 20, "sliding_window": 8,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
        },
    },
}  # fmt: skip
