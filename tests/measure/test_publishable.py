"""No key, no address and no folder of somebody's disk is in a published record, in whatever form an engine tells it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import JsonValue

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
        ({"launch_command": "--model-path /home/bob/moe --api-key sk-1 --host 10.1.2.3"},
         {"launch_command": f"--model-path moe --api-key {HIDDEN} --host {HIDDEN}"}),
        ({"launch_command": "python -m serve --api-key sk-1 --say don't --host 127.0.0.1"},
         {"launch_command": f"python -m serve --api-key {HIDDEN} --say don't --host 127.0.0.1"}),
        ({"launch_command": "--model-path=/home/bob/moe --hf-overrides {\"token\": \"sk-1\"} --tp 2"},
         {"launch_command": f"--model-path=moe --hf-overrides {{token: {HIDDEN}}} --tp 2"}),
        ({"command": ["/opt/bin/python", "-m", "serve", "/home/bob/moe", "--host", "127.0.0.1", "--port", "{port}"]},
         {"command": ["python", "-m", "serve", "moe", "--host", "127.0.0.1", "--port", "{port}"]}),
        ({"command": ["{home}/bin/llama-server", "--model", "/home/bob/x.gguf", "-hft", "sk-1"]},
         {"command": ["{home}/bin/llama-server", "--model", "x.gguf", "-hft", HIDDEN]}),
        ({"given": ["--model-path=/home/bob/x", "--dist-init-addr", "10.0.0.3:5", "--hf-overrides={'token': 'sk-1'}"]},
         {"given": ["--model-path=x", "--dist-init-addr", HIDDEN, f"--hf-overrides={{'token': '{HIDDEN}'}}"]}),
        ({"given": ["--api-key sk-1", "env", "HF_TOKEN=sk-1", "--seed", "-1"]},
         {"given": [f"--api-key {HIDDEN}", "env", f"HF_TOKEN={HIDDEN}", "--seed", "-1"]}),
        ({"text": "{'inner': {'api_key': 'sk-1'}, 'secrets': {'a': 'sk-1', 'b': ['sk-2']}, 'n': 1}"},
         {"text": f"{{'inner': {{'api_key': '{HIDDEN}'}}, 'secrets': '{HIDDEN}', 'n': 1}}"}),
        ({"text": "['/home/bob/a', '/home/bob/b c'], ['--api-key', 'sk-1'], Settings(api_key='sk-1', n=1)"},
         {"text": f"['a', 'b c'], ['--api-key', '{HIDDEN}'], Settings(api_key='{HIDDEN}', n=1)"}),
        ({"HF_TOKEN": "sk-1", "apiKey": "sk-1", "encoder_urls": ["http://h"], "endpoint": "tcp://10.0.0.1:5557"}, {}),
        ({"proxy": "https://user:sk-1@host", "host": "127.0.0.1", "store": "http://localhost:8000/v1"},
         {"proxy": HIDDEN, "host": "127.0.0.1", "store": "http://localhost:8000/v1"}),
        ({"said": "nobody: 3 tokens/s / server", "json": '{"method": "ngram", "k": [1]}'},
         {"said": "nobody: 3 tokens/s / server", "json": '{"method": "ngram", "k": [1]}'}),
    ],
)  # fmt: skip
def test_only_what_harms_nobody_is_published(told: dict[str, Any], shown: dict[str, Any]) -> None:
    assert publishable(told) == shown
    assert "sk-" not in json.dumps(publishable(told))


NAMES = ("api_key", "api-key", "apiKey", "API_KEY", "APIKey", "hf_token", "HF_TOKEN", "hfToken", "admin.api-key",
         "token", "ssl_keyfile_password", "secrets", "dist_init_addr", "encoder_urls", "endpoint", "host")  # fmt: skip
WAYS: tuple[Callable[[str, str], JsonValue], ...] = (
    lambda name, value: {name: value},
    lambda name, value: {name: [value, {"a": value}]},
    lambda name, value: [f"--{name}", value, value, "--tp", "2"],
    lambda name, value: [f"--{name}={value}", f"{name}={value}"],
    lambda name, value: f"serve /home/me/moe --{name} {value} --tp 2",
    lambda name, value: f"--tp 2 --{name}={value}",
    lambda name, value: repr({name: value, "n": 1}),
    lambda name, value: json.dumps({"n": [1], name: [value, {"a": value}]}),
    lambda name, value: repr(["--tp", "2", f"--{name}", value]),
    lambda name, value: [f"--overrides={json.dumps({name: value})}", "--more", json.dumps({name: value})],
)
"""To tell a value under a name."""
WRAPS: tuple[Callable[[JsonValue], JsonValue], ...] = (
    lambda told: told,
    lambda told: {"inner": told},
    lambda told: [1, told],
    lambda told: repr({"inner": told}),
    lambda told: json.dumps([{"inner": told}]),
)


@given(
    st.sampled_from(NAMES),
    st.from_regex(r"sk[A-Za-z0-9_.:/+=-]{6,12}", fullmatch=True),
    st.sampled_from(WAYS),
    st.sampled_from(WRAPS),
)
def test_no_spelling_and_no_form_brings_a_secret_into_a_record(
    name: str, secret: str, way: Callable[[str, str], JsonValue], wrap: Callable[[JsonValue], JsonValue]
) -> None:
    assert secret not in json.dumps(publishable({"told": wrap(way(name, secret))}))


def test_an_option_that_is_given_a_secret_is_known_by_its_name() -> None:
    assert all(map(is_secret, ("--api-key", "--api-key=sk-1", "--admin-api-key", "--hf-token", "--api-key-file")))
    assert all(map(is_secret, ("--HF_TOKEN", "--apiKey=sk-1", "--api-key sk-1", "-hft")))
    assert not any(map(is_secret, ("--max-num-batched-tokens", "--return-tokens-as-token-ids", "api-key")))


def test_a_secret_option_cut_short_is_one() -> None:
    """Python's argparse takes any beginning that only one option has."""
    assert all(map(is_secret, ("--api-k", "--api", "--api-ke=sk-1", "--hf-tok", "--admin-api", "--ssl-keyfile-pass")))
    assert not any(map(is_secret, ("--api-server-count", "-hf", "--hf-overrides", "--ssl-keyfile")))
    assert publishable({"given": ["--api-k", "sk-1", "--hf-t=sk-2"]}) == {
        "given": ["--api-k", HIDDEN, f"--hf-t={HIDDEN}"]
    }
    assert publishable({"api": "openai", "text": "Config(hf_t=1)"}) == {"api": "openai", "text": "Config(hf_t=1)"}
