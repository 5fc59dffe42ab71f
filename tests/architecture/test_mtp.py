"""MTP layers, which are counted apart, equal those that transformers builds for speculative decoding."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from transformers import AutoConfig
from transformers.initialization import no_init_weights
from transformers.modeling_layers import MtpModel

from moe_cap.architecture import Architecture, parse_config
from tests.architecture import meta_model
from tests.architecture.configs import MULTIMODAL, TINY

WITH_MTP: dict[str, dict[str, Any]] = {
    "deepseek_v3": {"num_nextn_predict_layers": 2},
    "glm4_moe": {"num_nextn_predict_layers": 1},
    "inkling_text": {"num_mtp_layers": 2, "mtp_local_layer_ids": [1], "chain_hidden_post_norm": True},
    "mellum": {"num_nextn_predict_layers": 1},
    "bailing_hybrid": {
        "num_nextn_predict_layers": 1, "mtp_layer_types": ["full_attention"], "mtp_mlp_layer_types": ["sparse"],
    },
}  # fmt: skip


@pytest.mark.parametrize("name", WITH_MTP)
def test_mtp_parameters_equal_the_model_on_the_meta_device(name: str) -> None:
    config = TINY[name] | WITH_MTP[name]
    arch = parse_config(config)
    with torch.device("meta"), no_init_weights():
        main = meta_model.from_config(AutoConfig.for_model(**deepcopy(config)))
        mtp = MtpModel(main, len(arch.mtp))
    own = {key: value for key, value in mtp.named_parameters() if key.startswith(("layers.", "shared_post_norm"))}
    assert arch.mtp_parameters().total == sum(parameter.numel() for parameter in own.values())
    assert len(arch.mtp) > 0


JOINS = 2 * 48 * 48 + 3 * 48
STREAM_HEAD = 4 * 4 * 48 + 4 + 1


def total_of(arch: Architecture, index: int) -> int:
    """A decoder layer without its hyper-connections, which `other` holds in these families."""
    counted = arch.parameters_by_layer()[index]
    return counted.total - counted.other


@pytest.mark.parametrize(
    ("name", "named", "held", "like"),
    [("hy_v4", 1, 1, 1), ("hy_v4", 3, 2, 1), ("dots3_note_text", 2, 2, 0), ("glm5_next", 1, 1, 1)],
)
def test_mtp_layers_that_transformers_skips_are_built_as_vllm_does(name: str, named: int, held: int, like: int) -> None:
    config = deepcopy((TINY | MULTIMODAL)[name])
    config.get("text_config", config)["num_nextn_predict_layers"] = named
    arch = parse_config(config)
    assert arch.mtp_parameters().total == held * (total_of(arch, like) + JOINS)


def test_deepseek_v4_merges_its_streams_in_every_mtp_layer() -> None:
    arch = parse_config(TINY["deepseek_v4"] | {"num_nextn_predict_layers": 1, "compress_ratios": [0, 4, 128, 4, 0]})
    slides, whole = parse_config(TINY["deepseek_v4"] | {"num_hash_layers": 0}), arch.mtp_parameters().total
    assert whole == slides.parameters_by_layer()[0].total + JOINS + STREAM_HEAD


def test_a_round_of_nemotrons_mtp_has_one_projection_and_one_last_norm() -> None:
    config = TINY["nemotron_h"] | {"num_nextn_predict_layers": 2, "mtp_hybrid_override_pattern": "*E"}
    arch = parse_config(config)
    mixture, attention = (arch.parameters_by_layer()[index].total for index in (1, 2))
    assert arch.mtp_parameters().total == 2 * (mixture + attention + JOINS)


def test_mtp_layers_that_nobody_described_are_told_apart_from_none() -> None:
    assert parse_config(TINY["minimax_m2"] | {"num_mtp_modules": 3}).mtp_unread == 3
    assert parse_config(TINY["minimax_m2"]).mtp_unread == 0
    assert parse_config(TINY["deepseek_v3"] | {"num_nextn_predict_layers": 2}).mtp_unread == 0


def test_mtp_tensors_that_only_the_checkpoint_names_are_no_zero() -> None:
    assert parse_config(MULTIMODAL["mistral_large4"]).mtp_unread >= 1
