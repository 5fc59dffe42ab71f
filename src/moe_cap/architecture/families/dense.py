"""Dense decoders (Llama, Mistral, Qwen2, Qwen3): the special case of one expert that every token uses."""

from __future__ import annotations

from collections.abc import Callable

from moe_cap.architecture.blocks import decoder, gqa_from, head_dim_of, pre_norms, qk_norms, window_of
from moe_cap.architecture.config import Config
from moe_cap.architecture.feed_forward import DenseFfn
from moe_cap.architecture.mixers import Mixer
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.reach import Full, Window
from moe_cap.architecture.weights import gated_mlp


def _dense(
    config: Config, mixer_at: Callable[[int], Mixer], *, model_type: str, mlp_bias: bool = False
) -> Architecture:
    hidden_size = config.size("hidden_size")
    ffn = DenseFfn(gated_mlp("mlp", hidden_size, config.size("intermediate_size"), bias=mlp_bias))
    norms = pre_norms(hidden_size)
    return decoder(config, lambda i, path: Layer(path, mixer_at(i), ffn, norms), model_type=model_type)


def read_llama(config: Config) -> Architecture:
    """Llama 1 to 3 and everything that loads as it."""
    bias = config.flag("attention_bias", default=False)
    mixer = gqa_from(config, qkv_bias=bias, o_bias=bias)
    return _dense(config, lambda _: mixer, model_type="llama", mlp_bias=config.flag("mlp_bias", default=False))


def read_mistral(config: Config) -> Architecture:
    """Mistral: every layer slides if there is a window at all."""
    mixer = gqa_from(config, reach=Window(config.size("sliding_window")) if config.has("sliding_window") else Full())
    return _dense(config, lambda _: mixer, model_type="mistral")


def qwen_layer_types(config: Config) -> tuple[str, ...]:
    """Qwen's windows: none unless `use_sliding_window`, and then from layer `max_window_layers` on."""
    number = config.num_layers("num_hidden_layers")
    slides = config.flag("use_sliding_window", default=False) and config.has("sliding_window")
    first = config.count("max_window_layers", default=number)
    default = ["sliding_attention" if slides and i >= first else "full_attention" for i in range(number)]
    return config.layer_types(number, ("full_attention", "sliding_attention"), default=default)


def read_qwen2(config: Config) -> Architecture:
    """Qwen1.5, Qwen2, Qwen2.5: biases on q, k and v."""
    kinds = qwen_layer_types(config)
    mixers = {kind: gqa_from(config, qkv_bias=True, reach=window_of(config, kind)) for kind in set(kinds)}
    return _dense(config, lambda i: mixers[kinds[i]], model_type="qwen2")


def read_qwen3(config: Config) -> Architecture:
    """Qwen3: norms on query and key."""
    kinds = qwen_layer_types(config)
    bias = config.flag("attention_bias", default=False)
    head_dim = head_dim_of(config, config.size("hidden_size"), config.size("num_attention_heads"))
    mixers = {
        kind: gqa_from(config, qkv_bias=bias, o_bias=bias, extra=qk_norms(head_dim), reach=window_of(config, kind))
        for kind in set(kinds)
    }
    return _dense(config, lambda i: mixers[kinds[i]], model_type="qwen3")
