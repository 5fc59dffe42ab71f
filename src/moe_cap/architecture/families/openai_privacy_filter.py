"""OpenAI's privacy filter: gpt-oss's layers looking both ways, with a label for every token instead of a next one."""

from __future__ import annotations

from dataclasses import replace

from moe_cap.architecture.blocks import SELF_ATTENTION, decoder, gqa_from, pre_norms
from moe_cap.architecture.config import Config
from moe_cap.architecture.encoder_decoder import EncoderAttention
from moe_cap.architecture.families.gpt_oss import mixture
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.weights import Weight, linear

NUM_LABELS = 33
"""None, and four positions in a span for each of eight kinds: what its config means without `id2label`."""


def read(config: Config) -> Architecture:
    """The classifier stands where an output head does, with a row of logits for every token.

    It has no decode step and no cache: a step is a whole text, anything else is refused when it is counted.
    """
    hidden_size, heads = config.size("hidden_size"), config.size("num_attention_heads")
    bias = config.flag("attention_bias", default=True)
    sinks = (Weight(f"{SELF_ATTENTION}.sinks", (heads,), tp_ways=heads),)
    one_way = gqa_from(config, qkv_bias=bias, o_bias=bias, extra=sinks)
    mixer = EncoderAttention(one_way.weights, heads, one_way.qk_head_dim, config.size("sliding_window", default=128))
    moe, norms = mixture(config), pre_norms(hidden_size)
    arch = decoder(config, lambda _, path: Layer(path, mixer, moe, norms), model_type="openai_privacy_filter")
    labels = len(config.mapping("id2label")) or config.size("num_labels", default=NUM_LABELS)
    return replace(arch, lm_head=linear("score", labels, hidden_size, bias=True), tied=False)
