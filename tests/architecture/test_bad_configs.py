"""Whatever is wrong with a config, the error says which key and what was expected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_cap.architecture import FAMILIES, parse_config, read_config
from moe_cap.architecture.config import MAX_CONFIG_BYTES
from moe_cap.errors import ConfigError, UnknownModelTypeError
from tests.architecture.configs import LABELLING, TINY, TWO_STACKS, published

GOOD = TINY["qwen3_moe"]
SMALL = TINY | TWO_STACKS | LABELLING


@pytest.mark.parametrize(
    "key", ["hidden_size", "num_experts", "num_hidden_layers", "vocab_size", "num_experts_per_tok"]
)
@pytest.mark.parametrize("value", [-1, 0, 1.5, "8", True, [], {}, 1 << 80])
def test_a_wrong_value_names_its_key(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=key) as caught:
        parse_config(GOOD | {key: value})
    assert caught.value.key == key


@pytest.mark.parametrize("key", ["hidden_size", "num_experts", "num_hidden_layers", "vocab_size", "model_type"])
def test_a_missing_key_is_named(key: str) -> None:
    with pytest.raises(ConfigError, match=f"lacks {key}"):
        parse_config({name: value for name, value in GOOD.items() if name != key})


def test_more_experts_per_token_than_experts_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_experts_per_tok"):
        parse_config(GOOD | {"num_experts_per_tok": 11})


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_key_value_heads"):
        parse_config(GOOD | {"num_key_value_heads": 3})


def test_a_million_layers_are_refused_before_they_are_built() -> None:
    with pytest.raises(ConfigError, match="num_hidden_layers"):
        parse_config(GOOD | {"num_hidden_layers": 1_000_000})


def test_an_unknown_model_type_says_what_to_add() -> None:
    with pytest.raises(UnknownModelTypeError, match=r"families.*registry\.py.*--introspect"):
        parse_config(GOOD | {"model_type": "alchemy"})
    for wrong in (None, 7, ["qwen3_moe"]):
        with pytest.raises(ConfigError, match="model_type"):
            parse_config(GOOD | {"model_type": wrong})
    with pytest.raises(ConfigError):
        parse_config([])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"model_type": "mixtral"', b"[]", b"null", b"\xff\xfe", b"[" * 100_000]
)
def test_a_file_that_is_no_config_is_a_named_error(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"config\.json"):
        read_config(tmp_path)


def test_a_huge_file_is_refused_without_reading_it_all(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    with file.open("wb") as stream:
        stream.truncate(100 * 1024 * 1024)
    assert file.stat().st_size > MAX_CONFIG_BYTES
    with pytest.raises(ConfigError, match="larger"):
        read_config(file)
    with pytest.raises(ConfigError, match="cannot read"):
        read_config(tmp_path / "missing.json")


def test_a_config_is_read_from_its_file_or_its_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(GOOD), encoding="utf-8")
    counted = parse_config(GOOD).parameters()
    assert read_config(tmp_path).parameters() == read_config(str(tmp_path / "config.json")).parameters() == counted


JUNK = st.one_of(
    st.none(), st.integers(-3, 3), st.text(max_size=3), st.booleans(), st.lists(st.integers(0, 2), max_size=3)
)


@pytest.mark.parametrize("name", SMALL)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_junk_in_any_key_gives_a_structure_or_a_named_error(name: str, data: st.DataObject) -> None:
    config = dict(SMALL[name])
    for key in data.draw(st.lists(st.sampled_from(sorted(config)), min_size=1, max_size=3)):
        config[key] = data.draw(JUNK)
    try:
        arch = parse_config(config)
    except ConfigError:
        return
    assert arch.parameters().total >= 0


@pytest.mark.parametrize("name", SMALL)
def test_a_name_of_a_model_decides_nothing(name: str) -> None:
    named = SMALL[name] | {"_name_or_path": "mistralai/Mixtral-8x22B", "architectures": ["GptOssForCausalLM"]}
    assert parse_config(named).parameters() == parse_config(SMALL[name]).parameters()


def test_every_published_config_is_readable() -> None:
    if not published():
        pytest.skip("MOE_CAP_SHARED has no model_configs")
    for config in published().values():
        assert config["model_type"] in FAMILIES
        assert parse_config(config).parameters().total > 1e9


def test_kimi_k3_is_as_large_as_its_report_says() -> None:
    if "moonshotai--Kimi-K3" not in published():
        pytest.skip("MOE_CAP_SHARED has no model_configs")
    counted = parse_config(published()["moonshotai--Kimi-K3"]).parameters()
    assert counted.total == pytest.approx(2.8e12, rel=0.01)
    assert counted.active == pytest.approx(104e9, rel=0.015)
