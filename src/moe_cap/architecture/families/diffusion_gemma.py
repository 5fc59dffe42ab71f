"""DiffusionGemma: Gemma 4 with a mixture in every layer, and an MLP that feeds the last guess back."""

from __future__ import annotations

from dataclasses import replace

from moe_cap.architecture.blocks import text_section
from moe_cap.architecture.config import Config
from moe_cap.architecture.families.gemma4 import read_decoder
from moe_cap.architecture.model import Architecture
from moe_cap.architecture.weights import gated_mlp, norm

PREFIX = "model.decoder.self_conditioning"


def read(config: Config) -> Architecture:
    """The stack that encoder and decoder share; the vision tower is not counted.

    It denoises a canvas of `canvas_length` tokens at once, so one of its steps has as many new tokens a sequence.
    """
    text, tied = text_section(config), config.flag("tie_word_embeddings", default=True)
    arch = read_decoder(text, model_type="diffusion_gemma", prefix="model.decoder", tied=tied, all_mixed=True)
    hidden_size = arch.hidden_size
    feedback = gated_mlp(PREFIX, hidden_size, text.size("intermediate_size"))
    norms = (*arch.norms, *norm(f"{PREFIX}.pre_norm", hidden_size))
    return replace(arch, norms=norms, other=(*arch.other, *feedback))
