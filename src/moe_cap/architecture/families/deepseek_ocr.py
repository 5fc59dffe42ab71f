"""DeepSeek-OCR-2 and Unlimited-OCR: DeepSeek-V2's mixture under plain multi-head attention."""

from __future__ import annotations

from moe_cap.architecture.blocks import gqa_from, text_section
from moe_cap.architecture.config import Config
from moe_cap.architecture.families.deepseek import deepseek_decoder, deepseek_moe
from moe_cap.architecture.model import Architecture


def _read(config: Config, *, model_type: str, prefix: str, first_dense: int) -> Architecture:
    bias, mlp_bias = config.flag("attention_bias", default=False), config.flag("mlp_bias", default=False)
    mixer = gqa_from(config, qkv_bias=bias, o_bias=bias)
    moe = deepseek_moe(config, corrected=False, mlp_bias=mlp_bias)
    return deepseek_decoder(
        config, lambda _: mixer, moe, model_type=model_type, dense_bias=mlp_bias, first_dense=first_dense, prefix=prefix
    )


def read_deepseek_ocr2(config: Config) -> Architecture:
    """The language model; the two vision encoders are not counted."""
    return _read(text_section(config), model_type="deepseek_ocr2", prefix="model.language_model", first_dense=0)


def read_unlimited_ocr(config: Config) -> Architecture:
    """The same, whose tokens see the prompt and the last `sliding_window` tokens of the answer.

    How much of a context is prompt is not in a config, so it counts as all of it: exact until the answer is longer
    than the window, an upper bound from there on.
    """
    return _read(text_section(config), model_type="unlimited_ocr", prefix="model.language_model", first_dense=1)
