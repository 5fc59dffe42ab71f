"""Which reader understands which `model_type`: one line per family, and no matching on a model's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from moe_cap.architecture.config import Config, read_config_file
from moe_cap.architecture.families import (
    arctic,
    aria,
    axk2,
    bailing,
    beam,
    cohere2_moe,
    dbrx,
    deepseek,
    deepseek_ocr,
    deepseek_v4,
    dense,
    diffusion_gemma,
    doge,
    dots3_note,
    ernie,
    flint,
    gemma4,
    glm,
    glm5_next,
    gpt_oss,
    granite,
    grok,
    hy_v4,
    inkling,
    inkling2,
    jetmoe,
    kimi_k3,
    kimi_linear,
    kolibri,
    laguna,
    lfm2,
    llama4,
    longcat,
    mamba,
    mimo,
    minimax,
    minimax_m3,
    mistral4,
    mistral_large4,
    mixtral,
    muse_spark,
    nllb_moe,
    olmoe,
    openai_privacy_filter,
    phimoe,
    post_norm,
    qwen2_moe,
    qwen3_moe,
    qwen3_next,
    qwen4_exp,
    step3,
    switch_transformers,
    zaya,
)
from moe_cap.architecture.model import Architecture
from moe_cap.errors import ConfigError, UnknownModelTypeError

Reader = Callable[[Config], Architecture]

FAMILIES: dict[str, Reader] = {
    "afmoe": post_norm.read_afmoe,
    "arctic": arctic.read,
    "aria": aria.read,
    "aria_text": aria.read_text,
    "axk1": deepseek.read_axk1,
    "axk2": axk2.read,
    "bailing_hybrid": bailing.read,
    "beam": beam.read,
    "cohere2_moe": cohere2_moe.read,
    "dbrx": dbrx.read,
    "deepseek_ocr2": deepseek_ocr.read_deepseek_ocr2,
    "deepseek_ref": deepseek_v4.read,
    "deepseek_v2": deepseek.read_v2,
    "deepseek_v3": deepseek.read_v3,
    "deepseek_v32": deepseek.read_v32,
    "deepseek_v4": deepseek_v4.read,
    "diffusion_gemma": diffusion_gemma.read,
    "doge": doge.read,
    "dots1": glm.read_dots1,
    "dots3_note": dots3_note.read,
    "dots3_note_text": dots3_note.read_text,
    "ernie4_5_moe": ernie.read,
    "ernie4_5_vl_moe": ernie.read_vl,
    "exaone_moe": post_norm.read_exaone_moe,
    "flex_olmo": post_norm.read_flex_olmo,
    "flint": flint.read,
    "gemma4": gemma4.read,
    "gemma4_text": gemma4.read_text,
    "glm4_moe": glm.read_glm4_moe,
    "glm4_moe_lite": glm.read_glm4_moe_lite,
    "glm4v_moe": glm.read_glm4v_moe,
    "glm5_next": glm5_next.read,
    "glm_moe_dsa": glm.read_glm_moe_dsa,
    "gpt_oss": gpt_oss.read,
    "granitemoe": granite.read_moe,
    "granitemoe_swa": granite.read_swa,
    "granitemoehybrid": granite.read_hybrid,
    "granitemoeshared": granite.read_moe,
    "grok-1": grok.read,
    "hunyuan_v1_moe": post_norm.read_hunyuan_v1,
    "hy_v3": post_norm.read_hy_v3,
    "hy_v4": hy_v4.read,
    "inkling2": inkling2.read,
    "inkling2_text": inkling2.read_text,
    "inkling_mm_model": inkling.read,
    "inkling_text": inkling.read_text,
    "jamba": mamba.read_jamba,
    "jetmoe": jetmoe.read,
    "kimi_k2": deepseek.read_kimi_k2,
    "kimi_k25": deepseek.read_kimi_k25,
    "kimi_k3": kimi_k3.read,
    "kimi_linear": kimi_linear.read,
    "kolibri1": kolibri.read,
    "laguna": laguna.read,
    "lfm2_moe": lfm2.read,
    "llama": dense.read_llama,
    "llama4": llama4.read,
    "llama4_text": llama4.read_text,
    "longcat_flash": longcat.read,
    "mellum": qwen3_moe.read_mellum,
    "mimo_v2_flash": mimo.read,
    "minimax": minimax.read_text_01,
    "minimax_m2": minimax.read_m2,
    "minimax_m3": minimax_m3.read,
    "minimax_m3_vl": minimax_m3.read_vl,
    "minimax_m3_vl_text": minimax_m3.read,
    "mistral": dense.read_mistral,
    "mistral4": mistral4.read,
    "mistral_large4": mistral_large4.read,
    "mixtral": mixtral.read,
    "muse_spark": muse_spark.read,
    "nemotron_h": mamba.read_nemotron_h,
    "nllb-moe": nllb_moe.read,
    "olmoe": olmoe.read,
    "openai_privacy_filter": openai_privacy_filter.read,
    "phimoe": phimoe.read,
    "qwen2": dense.read_qwen2,
    "qwen2_moe": qwen2_moe.read,
    "qwen3": dense.read_qwen3,
    "qwen3_5_moe": qwen3_next.read_qwen3_5,
    "qwen3_5_moe_text": qwen3_next.read_qwen3_5_text,
    "qwen3_moe": qwen3_moe.read,
    "qwen3_next": qwen3_next.read_qwen3_next,
    "qwen3_omni_moe": qwen3_moe.read_omni,
    "qwen3_vl_moe": qwen3_moe.read_vl,
    "qwen3_vl_moe_text": qwen3_moe.read_vl_text,
    "qwen4_exp": qwen4_exp.read,
    "qwen4_exp_text": qwen4_exp.read_text,
    "solar_open": glm.read_solar_open,
    "step3p5": step3.read,
    "step3p7": step3.read,
    "switch_transformers": switch_transformers.read,
    "unlimited_ocr": deepseek_ocr.read_unlimited_ocr,
    "zaya": zaya.read,
}

MTP_KEYS = ("num_nextn_predict_layers", "num_mtp_layers", "num_mtp_modules", "mtp_num_hidden_layers")


def parse_config(config: Mapping[str, Any]) -> Architecture:
    """The exact structure behind a config.json.

    Raises:
        UnknownModelTypeError: no reader for this `model_type`.
        ConfigError: a key is missing or holds a value of the wrong kind; `key` names it.
    """
    if not isinstance(config, Mapping):
        raise ConfigError(f"a config is a JSON object, not {type(config).__name__}")
    model_type = Config(config).word("model_type")
    reader = FAMILIES.get(model_type)
    if reader is None:
        raise UnknownModelTypeError(
            f"no reader for model_type {model_type!r}: add a file to moe_cap/architecture/families and its line to"
            " moe_cap/architecture/registry.py, or count it from the model itself with `moe-cap describe --introspect`",
            key="model_type",
        )
    arch = reader(Config(config))
    return arch if arch.mtp or arch.mtp_unread else replace(arch, mtp_unread=_named_mtp(Config(config)))


def _named_mtp(config: Config) -> int:
    """Multi-token-prediction layers that a config or the language model's part of it names."""
    nested = [config.section(key) for key in ("text_config", "language_config", "llm_config") if config.has(key)]
    return max(section.count(*MTP_KEYS, default=0) for section in (config, *nested))


def read_config(path: str | Path) -> Architecture:
    """Read the config.json at `path`, or in the model folder `path`, and parse it."""
    return parse_config(read_config_file(Path(path)))
