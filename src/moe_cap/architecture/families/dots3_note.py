"""dots3-note: gated latent attention, of its own sizes where it slides, with an indexer where it does not."""

from __future__ import annotations

from moe_cap.architecture.blocks import (
    SELF_ATTENTION,
    decoder,
    dense_ffn,
    gated_moe,
    pre_norms,
    sparse_layers,
    text_section,
    top_k_of,
)
from moe_cap.architecture.config import Config
from moe_cap.architecture.families.deepseek import corrected_router, lightning_indexer, mtp_layers
from moe_cap.architecture.feed_forward import DenseFfn
from moe_cap.architecture.mixers import LatentAttention
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.reach import Full, Reach, Selected, Window
from moe_cap.architecture.weights import gated_mlp, linear, norm

SLIDING, INDEXED, FULL = "sliding_attention", "indexed_attention", "full_attention"
# what the sliding layers have where the config leaves it out (configuration_dots3_note.py of transformers 5.23)
SLIDING_SIZES = {
    "num_attention_heads": 64,
    "q_lora_rank": 1024,
    "kv_lora_rank": 1024,
    "head_dim": 256,
    "qk_nope_head_dim": 192,
    "v_head_dim": 128,
}


def _sizes(config: Config, kind: str) -> dict[str, int]:
    if kind != SLIDING:
        keys = ("num_attention_heads", "q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "v_head_dim")
        return {key: config.size(key) for key in keys} | {"qk_rope_head_dim": config.size("qk_rope_head_dim")}
    sizes = {key: config.size(f"swa_{key}", default=default) for key, default in SLIDING_SIZES.items()}
    rotary = sizes.pop("head_dim") - sizes["qk_nope_head_dim"]
    if rotary < 1 and not config.has("swa_qk_rope_head_dim"):
        raise config.complain("swa_qk_nope_head_dim", "leaves no room for a rotary part in swa_head_dim")
    return sizes | {"qk_rope_head_dim": config.size("swa_qk_rope_head_dim", default=max(rotary, 1))}


def _attention(config: Config, kind: str) -> LatentAttention:
    """One gate a head, and a norm on the rotary key."""
    hidden, sizes = config.size("hidden_size"), _sizes(config, kind)
    heads, bias = sizes["num_attention_heads"], config.flag("attention_bias", default=False)
    nope, rope, value = sizes["qk_nope_head_dim"], sizes["qk_rope_head_dim"], sizes["v_head_dim"]
    q_rank, kv_rank, prefix = sizes["q_lora_rank"], sizes["kv_lora_rank"], SELF_ATTENTION
    indexer = lightning_indexer(config) if kind == INDEXED else None
    weights = (
        *linear(f"{prefix}.q_a_proj", q_rank, hidden, bias=bias, tp_ways=1),
        *norm(f"{prefix}.q_a_layernorm", q_rank),
        *linear(f"{prefix}.q_b_proj", heads * (nope + rope), q_rank, tp_ways=heads),
        *linear(f"{prefix}.kv_a_proj_with_mqa", kv_rank + rope, hidden, bias=bias, tp_ways=1),
        *norm(f"{prefix}.kv_a_layernorm", kv_rank),
        *norm(f"{prefix}.k_rope_only_layernorm", rope),
        *linear(f"{prefix}.kv_b_proj", heads * (nope + value), kv_rank, tp_ways=heads),
        *linear(f"{prefix}.g_proj", heads, hidden, tp_ways=heads),
        *linear(f"{prefix}.o_proj", hidden, heads * value, bias=bias, tp_ways=heads),
        *(indexer[1] if indexer else ()),
    )
    reach: Reach = Full()
    if kind == SLIDING:
        reach = Window(config.size("sliding_window", "sliding_window_size", default=512))
    elif indexer:
        reach = Selected(config.size("index_topk"))
    return LatentAttention(weights, heads, kv_rank, nope, rope, value, reach, indexer[0] if indexer else None)


def _layer_types(config: Config, number: int) -> tuple[str, ...]:
    """Older configs call the indexed layers `full_attention`; `use_dsa` says whether they are."""
    slides = config.flag("use_sliding_window", default=True)
    default = [SLIDING if slides and i >= 2 and i % 4 != 1 else INDEXED for i in range(number)]
    kinds = config.layer_types(number, (SLIDING, INDEXED, FULL), default=default)
    seen = INDEXED if config.flag("use_dsa", default=True) else FULL
    return tuple(kind if kind == SLIDING else seen for kind in kinds)


def _mtp(config: Config, number: int, dense: DenseFfn) -> tuple[Layer, ...]:
    """MTP layers are dense; entries of `layer_types` past the decoder are theirs (vllm/models/dots3_note/nvidia)."""
    named = config.items("layer_types", kind=str) or ()
    kind = named[number] if len(named) > number else INDEXED
    if kind == FULL:
        kind = INDEXED if config.flag("use_dsa", default=True) else FULL
    return mtp_layers(config, _attention(config, kind), dense)


def _read(config: Config, *, model_type: str, prefix: str) -> Architecture:
    hidden_size, number = config.size("hidden_size"), config.num_layers("num_hidden_layers")
    if config.has("per_layer_config"):
        raise config.complain("per_layer_config", "expected the swa_* keys of the published config instead")
    kinds = _layer_types(config, number)
    mixers = {kind: _attention(config, kind) for kind in set(kinds)}
    num_experts = config.size("n_routed_experts", "num_local_experts")
    shared = config.size("moe_shared_expert_intermediate_size", "shared_experts_intermediate_size", default=1536)
    shared_size = shared * config.size("n_shared_experts", default=1)
    moe = gated_moe(
        hidden_size,
        config.size("moe_intermediate_size"),
        num_experts,
        top_k_of(config, num_experts, "num_experts_per_tok"),
        router=corrected_router(num_experts, hidden_size),
        shared=gated_mlp("mlp.shared_experts", hidden_size, shared_size),
    )
    sparse, dense = sparse_layers(config, number, first_dense=1), dense_ffn(config)
    norms = pre_norms(hidden_size)
    return decoder(
        config,
        lambda i, path: Layer(path, mixers[kinds[i]], moe if sparse[i] else dense, norms),
        model_type=model_type,
        prefix=prefix,
        mtp=_mtp(config, number, dense),
    )


def read_text(config: Config) -> Architecture:
    """The language model on its own."""
    return _read(config, model_type="dots3_note_text", prefix="model")


def read(config: Config) -> Architecture:
    """The language model of the multimodal one; encoders for images and sound are not counted."""
    return _read(text_section(config), model_type="dots3_note", prefix="model.language_model")
