"""Mistral 4: DeepSeek-V3 with a softmax router."""

from __future__ import annotations

from moe_cap.architecture.blocks import latent_attention
from moe_cap.architecture.config import Config
from moe_cap.architecture.families.deepseek import deepseek_decoder, deepseek_moe
from moe_cap.architecture.model import Architecture


def read(config: Config) -> Architecture:
    """No correction bias, and no MTP."""
    mixer = latent_attention(config, bias=config.flag("attention_bias", default=False))
    return deepseek_decoder(config, lambda _: mixer, deepseek_moe(config, corrected=False), model_type="mistral4")
