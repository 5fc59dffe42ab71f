"""The architecture that is trained, and the way its experts are computed while it is trained."""

from __future__ import annotations

import torch
from torch.nn import functional
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from training.tokenizer import BOS_ID, EOS_ID, MAX_TOKENS, PAD_ID

VOCABULARY = 128  # 100 are used; a multiple of 32 suits every quantisation kernel
LOAD_BALANCING = 0.01


def build_config() -> Qwen3MoeConfig:
    """Four layers of sixteen experts, four per token: 0.5 M parameters, 0.2 M of them active for a token."""
    return Qwen3MoeConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        intermediate_size=128,
        moe_intermediate_size=32,
        num_experts=16,
        num_experts_per_tok=4,
        norm_topk_prob=True,
        router_aux_loss_coef=LOAD_BALANCING,
        max_position_embeddings=MAX_TOKENS,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=False,
        pad_token_id=PAD_ID,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
    )


def experts_in_order(
    experts: torch.nn.Module, hidden: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
) -> torch.Tensor:
    """The experts of one layer, with the tokens sorted by expert.

    The same sum as the eager implementation. That one slices the fused weights once per expert, and the backward pass
    of a slice fills a tensor of the size of all experts; here the weights are taken apart once.

    Shapes:
        hidden (tokens, hidden_size), top_k_index and top_k_weights (tokens, top_k); returns (tokens, hidden_size).
    """
    chosen = top_k_index.reshape(-1)
    order = chosen.argsort(stable=True)
    token = order // top_k_index.shape[1]
    sizes = torch.bincount(chosen, minlength=experts.num_experts).tolist()
    weights = top_k_weights.reshape(-1, 1)[order].split(sizes)
    parts = []
    for x, weight, gate_up, down in zip(
        hidden[token].split(sizes), weights, experts.gate_up_proj.unbind(), experts.down_proj.unbind(), strict=True
    ):
        gate, up = functional.linear(x, gate_up).chunk(2, dim=-1)
        parts.append(functional.linear(functional.silu(gate) * up * weight, down))
    return torch.zeros_like(hidden).index_add(0, token, torch.cat(parts))


def build_model() -> Qwen3MoeForCausalLM:
    """A model with fresh weights, ready to be trained."""
    ALL_EXPERTS_FUNCTIONS.register("in_order", experts_in_order)
    model = Qwen3MoeForCausalLM(build_config())
    model.set_experts_implementation("in_order")
    return model
