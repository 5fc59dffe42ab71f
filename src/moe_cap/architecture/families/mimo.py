"""MiMo-V2-Flash: windows of 128 with attention sinks in five layers of six, keys wider than values."""

from __future__ import annotations

from moe_cap.architecture.blocks import SELF_ATTENTION, grouped_query_attention
from moe_cap.architecture.config import Config
from moe_cap.architecture.families.deepseek import deepseek_decoder, deepseek_moe
from moe_cap.architecture.mixers import Attention
from moe_cap.architecture.model import Architecture
from moe_cap.architecture.reach import Full, Window
from moe_cap.architecture.weights import vector


def _layer_types(config: Config, number: int) -> tuple[str, ...]:
    pattern = config.items("hybrid_layer_pattern", kind=int, length=number)
    if pattern is not None:
        return tuple("sliding_attention" if slides else "full_attention" for slides in pattern)
    default = ["full_attention" if i == 0 or (i + 1) % 6 == 0 else "sliding_attention" for i in range(number)]
    return config.layer_types(number, ("full_attention", "sliding_attention"), default=default)


def _attention(config: Config, kind: str) -> Attention:
    slides, heads = kind == "sliding_attention", config.size("num_attention_heads")
    kv_heads, bias = config.size("num_key_value_heads"), config.flag("attention_bias", default=False)
    # the window counts the query itself on top of `sliding_window_size` earlier tokens
    earlier = config.count("sliding_window_size", default=0)
    window = earlier + 1 if earlier else config.size("sliding_window")
    return grouped_query_attention(
        config.size("hidden_size"),
        heads,
        config.size("swa_num_key_value_heads", default=2 * kv_heads) if slides else kv_heads,
        config.size("head_dim"),
        v_head_dim=config.size("v_head_dim"),
        qkv_bias=bias,
        extra=vector(f"{SELF_ATTENTION}.attention_sink_bias", heads, tp_ways=heads) if slides else (),
        reach=Window(window) if slides else Full(),
    )


def read(config: Config) -> Architecture:
    """No shared experts; the weights of its three MTP layers are not counted."""
    kinds = _layer_types(config, config.num_layers("num_hidden_layers"))
    mixers = {kind: _attention(config, kind) for kind in set(kinds)}
    moe = deepseek_moe(config)
    return deepseek_decoder(config, lambda i: mixers[kinds[i]], moe, model_type="mimo_v2_flash", first_dense=1)
