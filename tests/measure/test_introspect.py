"""Counting from the model itself agrees with the readers, and refuses what transformers cannot build."""

from __future__ import annotations

import pytest

from moe_cap.architecture import FAMILIES, parse_config
from moe_cap.errors import ConfigError, UnknownModelTypeError
from moe_cap.measure.introspect import count_parameters
from tests.architecture.configs import DECODER, TINY

pytestmark = pytest.mark.model


@pytest.mark.parametrize(
    "name", ["llama-tied-mha", "qwen2_moe", "qwen3_moe", "deepseek_v3", "gpt_oss", "hunyuan_v1_moe"]
)
def test_introspection_agrees_with_the_reader(name: str) -> None:
    assert count_parameters(TINY[name]) == parse_config(TINY[name]).parameters()


def test_a_family_without_a_reader_is_counted() -> None:
    config = DECODER | {"model_type": "phi3", "pad_token_id": 0}
    assert "phi3" not in FAMILIES
    with pytest.raises(UnknownModelTypeError, match="--introspect"):
        parse_config(config)
    counted = count_parameters(config)
    assert counted.total == counted.active > counted.attention > 0


def test_what_transformers_cannot_build_is_a_named_error() -> None:
    with pytest.raises(UnknownModelTypeError):
        count_parameters({"model_type": "alchemy"})
    with pytest.raises(ConfigError):
        count_parameters({})
    with pytest.raises(ConfigError):
        count_parameters(TINY["llama"] | {"num_attention_heads": 7})
