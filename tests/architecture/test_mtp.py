"""MTP layers, which are counted apart, equal those that transformers builds for speculative decoding."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from transformers import AutoConfig
from transformers.initialization import no_init_weights
from transformers.modeling_layers import MtpModel

from moe_cap.architecture import parse_config
from tests.architecture import meta_model
from tests.architecture.configs import TINY

WITH_MTP = {"deepseek_v3": {"num_nextn_predict_layers": 2}, "glm4_moe": {"num_nextn_predict_layers": 1}} | {
    "inkling_text": {"num_mtp_layers": 2, "mtp_local_layer_ids": [1], "chain_hidden_post_norm": True}
}


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
