"""No key, no address and no folder of somebody's disk is in a published record, in whatever form an engine tells it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moe_cap.measure.publishable import HIDDEN, is_secret, publishable


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ({"api_key": "sk-1", "admin_api_key": "sk-1", "hf_token": "sk-1", "ssl_keyfile_password": "sk-1"}, {}),
        ({"host": "10.0.0.1", "port": 30000, "dist_init_addr": "10.0.0.1:5", "nccl_port": 7}, {}),
        ({"max_total_tokens": 4096, "tp_size": 8}, {"max_total_tokens": 4096, "tp_size": 8}),
        ({"model_path": "/home/me/moe/"}, {"model_path": "moe"}),
        ({"model_path": "Qwen/Qwen3-30B-A3B"}, {"model_path": "Qwen/Qwen3-30B-A3B"}),
        ({"nested": {"api_key": "sk-1", "dtype": "bf16"}}, {"nested": {"dtype": "bf16"}}),
        (
            {"given_arguments": ["--api-key", "sk-1", "sk-2", "--tp", "2", "--hf-token=sk-3", "--max-num-tokens", "8"]},
            {
                "given_arguments": [
                    "--api-key", HIDDEN, HIDDEN, "--tp", "2", f"--hf-token={HIDDEN}", "--max-num-tokens", "8",
                ]
            },
        ),
        (
            {"non_default_args": "{'model': '/home/me/moe', 'api_key': ['sk-1', 'sk-2'], 'port': 1, 'dtype': 'bf16'}"},
            {"non_default_args": f"{{'model': 'moe', 'api_key': '{HIDDEN}', 'port': '{HIDDEN}', 'dtype': 'bf16'}}"},
        ),
    ],
)  # fmt: skip
def test_only_what_harms_nobody_is_published(told: dict[str, Any], shown: dict[str, Any]) -> None:
    assert publishable(told) == shown
    assert "sk-" not in json.dumps(publishable(told))


def test_an_option_that_is_given_a_secret_is_known_by_its_name() -> None:
    assert all(map(is_secret, ("--api-key", "--api-key=sk-1", "--admin-api-key", "--hf-token", "--api-key-file")))
    assert not any(map(is_secret, ("--max-num-batched-tokens", "--return-tokens-as-token-ids", "api-key")))
