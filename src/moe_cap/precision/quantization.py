"""config.json's own word on how the model is stored: a dialect per `quant_method`, one line each."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from moe_cap.architecture.config import Config, read_config_file
from moe_cap.architecture.weights import Part
from moe_cap.errors import ConfigError, SubmissionError, UnknownPrecisionError
from moe_cap.precision.dialects import awq, bitsandbytes, compressed_tensors, fp8, gptq, modelopt
from moe_cap.precision.dialects import mxfp4 as mxfp4_dialect
from moe_cap.precision.dialects.section import Section
from moe_cap.precision.formats import BF16, WeightFormat, mxfp4, plain_format
from moe_cap.precision.plan import StoragePlan, StorageRule

DIALECTS: dict[str, Callable[[Section], StoragePlan]] = {
    "auto-round": gptq.parse_auto_round,
    "awq": awq.parse,
    "bitsandbytes": bitsandbytes.parse,
    "compressed-tensors": compressed_tensors.parse,
    "fbgemm_fp8": fp8.parse_fbgemm,
    "fp8": fp8.parse,
    "gptq": gptq.parse,
    "modelopt": modelopt.parse,
    "modelopt_fp4": modelopt.parse,
    "modelopt_mixed": modelopt.parse,
    "mxfp4": mxfp4_dialect.parse,
}
HF_QUANT_CONFIG = "hf_quant_config.json"
_TEXT_SECTIONS = ("text_config", "language_config", "llm_config")


def _sections(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The config itself, and the language model's part of a multimodal one."""
    nested = [config[key] for key in _TEXT_SECTIONS if isinstance(config.get(key), Mapping)]
    return [config, *nested]


def _plain(config: Mapping[str, Any]) -> WeightFormat:
    for section in _sections(config):
        view = Config(section)
        if view.has("dtype", "torch_dtype"):
            return plain_format(view.word("dtype", "torch_dtype"))
    return BF16


def _quantization(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    for section in _sections(config):
        for key in ("quantization_config", "compression_config"):
            if section.get(key) is not None:
                if not isinstance(section[key], Mapping):
                    raise ConfigError(f"config key {key} is {section[key]!r:.80}: expected an object", key=key)
                found: Mapping[str, Any] = section[key]
                return found
    return None


def _with_fp4_experts(plan: StoragePlan) -> StoragePlan:
    """DeepSeek-V4 keeps its routed experts in mxfp4 beside fp8, and says so outside the `quantization_config`."""
    if any(rule.parts is not None and Part.EXPERTS in rule.parts and rule.modules is not None for rule in plan.rules):
        return plan
    return replace(plan, name="mxfp4", rules=(StorageRule(mxfp4(), frozenset({Part.EXPERTS})), *plan.rules))


def parse_quantization(config: Mapping[str, Any]) -> StoragePlan:
    """How a config.json says that its checkpoint is stored.

    Without a `quantization_config` everything is in `dtype` (or `torch_dtype`), and in bf16 where that is missing too.
    A quantised checkpoint may keep its scheme elsewhere (NVIDIA's older ones: see `read_quantization`), so a plan from
    config.json alone is a claim: `checkpoint.read_checkpoint` knows from the files.

    Raises:
        UnknownPrecisionError: a `quant_method` or scheme that no dialect understands.
        ConfigError: a key of the section is missing or wrong; `key` names it.
    """
    plain, found = _plain(config), _quantization(config)
    if found is None:
        return StoragePlan(plain.name, plain, kv=plain, compute_dtype=plain.name)
    section = Section(Config(found, "quantization_config."), plain)
    method = section.config.word("quant_method", default="modelopt" if "quant_algo" in found else None)
    if method not in DIALECTS:
        known = ", ".join(DIALECTS)
        raise UnknownPrecisionError(f"quantization_config.quant_method is {method!r}: expected one of {known}")
    plan = DIALECTS[method](section)
    return _with_fp4_experts(plan) if Config(config).word("expert_dtype", default="") == "fp4" else plan


def parse_hf_quant_config(config: Mapping[str, Any], quantization: Mapping[str, Any]) -> StoragePlan:
    """The same with the scheme from hf_quant_config.json, where NVIDIA's older checkpoints keep it."""
    section = Section(Config(quantization).section("quantization"), _plain(config))
    return modelopt.parse(section)


def read_quantization(folder: Path, config: Mapping[str, Any]) -> StoragePlan:
    """How the model in a folder is stored: its config.json says so, or the hf_quant_config.json beside a silent one.

    Raises:
        UnknownPrecisionError: a scheme that no dialect understands.
        ConfigError: a file that cannot be read, or a key that is missing or wrong.
    """
    apart = folder / HF_QUANT_CONFIG
    if _quantization(config) is None and apart.is_file():
        return parse_hf_quant_config(config, read_config_file(apart))
    return parse_quantization(config)


def refuse_conversion(stored: StoragePlan, precision: str, model: str, as_stored: Collection[str] = ()) -> None:
    """Refuse to call a checkpoint by a precision that it would not run in, because its bytes would be wrong.

    No engine unpacks a quantised checkpoint. A plain one can be asked for in any precision that an engine offers, save
    those that the engine takes `as_stored` only.

    Raises:
        SubmissionError: at the field `precision`.
    """
    if stored.rules and stored.name != precision:
        raise SubmissionError(
            f"{model} is stored in {stored.name} and would run so: it cannot be measured as {precision};"
            f" take its {precision} checkpoint, or an engine that offers {stored.name}",
            field="precision",
        )
    if not stored.rules and precision in as_stored:
        raise SubmissionError(
            f"{model} is stored in {stored.name}, and this engine packs nothing: take a checkpoint of it that is stored"
            f" in {precision}, or ask for bf16",
            field="precision",
        )
