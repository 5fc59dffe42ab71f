"""The YAML of MoE-CAP configurations, and the grid that lists in it make."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from moe_cap.errors import ProfileError, UnknownDatasetError
from moe_cap.measure.load.schedule import Lengths
from moe_cap.measure.profile.config import parse_profile, read_config, read_trace
from moe_cap.measure.profile.grid import Cell, expand, fill, reproduce
from moe_cap.measure.profile.run import prompt_warnings
from moe_cap.measure.profile.system import Endpoint, Launched, is_here
from moe_cap.measure.publishable import HIDDEN
from moe_cap.settings import CHECKOUT

SHARED = Path(os.environ.get("MOE_CAP_SHARED", CHECKOUT.parent / "shared")) / "data" / "moe_cap_yaml"
FIXED = """
# comment of its author
dataset_names: ["gsm8k"]
metrics: []
model_id: lab/Some-MoE-A2.7B-Chat
fixed_length_mode: true
target_input_tokens: 4000   # 4K
target_output_tokens: 1000
num_samples: 256
"""
SCORED = """
dataset_names: ["gsm8k"]
metrics: ["em", "f1"]
model_id: lab/Some-MoE
precision: fp8
num_samples: 50
"""
HERE = Launched("vllm")


def cells(body: dict[str, Any], place: Any = HERE, precision: str = "bf16", revision: str = "r1") -> tuple[Cell, ...]:
    return expand(parse_profile({"model_id": "lab/moe", **body}), place, precision, revision)


def test_a_fixed_length_configuration_is_a_load_without_a_score() -> None:
    (cell,) = cells(yaml.safe_load(FIXED))
    asked = cell.submission
    assert (asked.model, asked.input_tokens, asked.output_tokens) == ("lab/Some-MoE-A2.7B-Chat", 4000, 1000)
    assert (asked.num_requests, asked.accuracy_limit, asked.tasks) == (256, None, ())
    assert asked.precision == "bf16", "what the model's configuration says"
    assert cell.prompts_from == "gsm8k"


def test_a_configuration_with_metrics_is_scored_on_its_samples() -> None:
    (cell,) = cells(yaml.safe_load(SCORED))
    asked = cell.submission
    assert (asked.tasks, asked.precision) == (("gsm8k",), "fp8")
    assert (asked.num_requests, asked.accuracy_limit) == (None, 50)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no sample configurations in {SHARED}: set MOE_CAP_SHARED")
def test_every_sample_configuration_makes_a_cell() -> None:
    files = sorted(SHARED.glob("*.yaml"))
    assert files
    for path in files:
        body = read_config(path)
        (cell,) = expand(parse_profile(body), HERE, "bf16", "r1")
        assert cell.submission.model == body["model_id"]
        own = "target_input_tokens" not in body
        assert cell.submission.lengths == ("dataset" if own else None)
        assert own or cell.submission.input_tokens == body["target_input_tokens"]
        assert bool(cell.submission.tasks) == bool(body["metrics"])


def test_data_whose_text_is_not_here_is_a_warning_and_cannot_be_scored() -> None:
    lengths = {"fixed_length_mode": True, "target_input_tokens": 13000, "target_output_tokens": 1000}
    config = parse_profile({"model_id": "a/b", "dataset_names": ["longbench_v2"], **lengths})
    assert config.prompts_from is None
    assert "longbench_v2" in prompt_warnings(config)[0]
    with pytest.raises(UnknownDatasetError, match="longbench_v2 has no accuracy task here"):
        cells({"dataset_names": ["longbench_v2"], "metrics": ["em"]})


@pytest.mark.parametrize(
    ("body", "key", "says"),
    [
        ({"modelid": "a/b"}, "modelid", "there are: model_id, dataset_names, metrics, precision, fixed_length_mode"),
        ({"num_samples": 0}, "num_samples", "greater than or equal to 1"),
        ({"metrics": ["bleu"]}, "metrics", "'em'"),
        ({"fixed_length_mode": True}, "profile", "needs target_input_tokens"),
        ({"target_input_tokens": 4}, "profile", "or neither"),
        ({"presets": "4k"}, "profile", "there are: 4k-1k, 13k-1k, 1k-8k"),
        ({"arrivals": "trace"}, "profile", "and the file"),
        ({"arrivals": "uniform"}, "arrivals", "poisson"),
        ({"arrivals": "poisson", "concurrency": 2}, "profile", "not both"),
    ],
)
def test_a_key_that_cannot_be_is_named(body: dict[str, Any], key: str, says: str) -> None:
    with pytest.raises(ProfileError, match=says) as refused:
        parse_profile(body)
    assert refused.value.key == key


@pytest.mark.parametrize("body", [{"arrivals": "poisson"}, {"arrivals": "poisson", "rates_per_s": [0]}])
def test_an_open_loop_needs_rates_above_nothing(body: dict[str, Any]) -> None:
    with pytest.raises(ProfileError, match="need rates above 0"):
        cells(body)


def test_unknown_data_is_named_with_what_is_known() -> None:
    with pytest.raises(UnknownDatasetError, match=r"no dataset 'gms8k'; there are: .*gsm8k.*arena-hard"):
        parse_profile({"dataset_names": ["gms8k"]})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- a\n", "holds no keys"), ("a: [", "is not YAML"), ("revision: 2026-11-31\n", "day is out of range"),
        (None, "cannot read"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_profile(tmp_path: Path, text: str | None, says: str) -> None:
    path = tmp_path / "p.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ProfileError, match=says):
        read_config(path)


def test_a_trace_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="cannot read the trace"):
        read_trace(tmp_path / "none")
    path = tmp_path / "times.txt"
    for body, says in {
        "": "is empty: give one arrival time a line, in seconds",
        " \n\n": "is empty",
        "0\n\nsoon\n": "line 3 of the trace .*times.txt is 'soon': give one",
        "0\nnan\n": "line 2 of .* is 'nan'",
        "inf\n": "line 1 of .* is 'inf'",
        "0 1\n": "line 1 of .* is '0 1'",
    }.items():
        path.write_text(body)
        with pytest.raises(ProfileError, match=says):
            read_trace(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ProfileError, match="is no text"):
        read_trace(path)


def test_a_trace_has_a_time_a_line(tmp_path: Path) -> None:
    (tmp_path / "times.txt").write_text("0\n 0.25 \n\n1e1\n")
    assert read_trace(tmp_path / "times.txt") == (0.0, 0.25, 10.0)


def test_lists_are_crossed_and_presets_are_pairs() -> None:
    config = parse_profile({"presets": "4k-1k", "target_input_tokens": [10, 20], "target_output_tokens": [5]})
    assert config.lengths == (Lengths(4000, 1000), Lengths(10, 5), Lengths(20, 5))
    grid = cells(
        {
            "precision": ["bf16", "fp8"],
            "presets": ["4k-1k", "1k-8k"],
            "concurrency": [1, 4],
            "engine_args": "--tensor-parallel-size {tp} {draft}",
            "sweep": {"tp": ["1", "2"], "draft": ["", '--speculative-config \'{"method": "ngram"}\'']},
        }
    )
    assert len(grid) == len({cell.fingerprint for cell in grid}) == 2 * 2 * 2 * 2
    assert {cell.submission.concurrency for cell in grid} == {(1, 4)}, "the loads of a cell are points of one result"
    assert grid[0].arguments == ("--tensor-parallel-size", "1")
    assert grid[1].arguments == ("--tensor-parallel-size", "1", "--speculative-config", '{"method": "ngram"}')


@pytest.mark.parametrize("words", ["--hf-token sk-1", "--HF_TOKEN=sk-1", "--tp 2 --apiKey sk-1", "--port 1"])
def test_what_no_argument_may_be_is_refused_as_a_swept_value_too(words: str) -> None:
    with pytest.raises(ProfileError, match=r"is no argument|by the profile itself") as refused:
        cells({"engine_args": "{draft}", "sweep": {"draft": ["", words]}})
    assert refused.value.key == "engine_args"


def test_the_command_that_repeats_a_cell_holds_nothing_private() -> None:
    (cell,) = cells({"engine_args": "--dist-init-addr 10.0.0.3:5000 --chat-template=/home/bob/chat.jinja --tp 2"})
    assert cell.arguments[1] == "10.0.0.3:5000"
    shown = shlex.split(reproduce(cell, HERE, None)).index("--")
    assert shlex.split(reproduce(cell, HERE, None))[shown + 1 :] == [
        "--dist-init-addr", HIDDEN, "--chat-template=chat.jinja", "--tp", "2",
    ]  # fmt: skip


def test_equal_cells_are_measured_once() -> None:
    assert len(cells({"precision": ["bf16", "bf16"]})) == 1


def test_a_fingerprint_changes_with_everything_that_decides_the_result() -> None:
    base: dict[str, Any] = {"target_input_tokens": 10, "target_output_tokens": 5}
    url = "http://127.0.0.1:1/v1"
    others = [
        cells(base),
        cells(base, revision="r2"),
        cells(base, precision="fp8"),
        cells(base | {"seed": 1}),
        cells(base | {"num_devices": 2}),
        cells(base | {"dataset_names": "gsm8k"}),
        cells(base | {"engine_args": ["--x"]}),
        cells(base | {"arrivals": "poisson", "rates_per_s": 1.0}),
        cells(base, Launched("sglang")),
        cells(base, Endpoint(url)),
        cells(base, Endpoint(url, replay=True)),
        cells(base, Endpoint(url, model="m")),
    ]
    assert len({cell.fingerprint for (cell,) in others}) == len(others)
    assert cells(base)[0].fingerprint == cells(base)[0].fingerprint
    assert cells(base, Endpoint(url, headers={"Authorization": "a"})) == cells(base, Endpoint(url))


@given(st.lists(st.text(alphabet='ab{}" =-', max_size=8), max_size=4))
def test_arguments_without_a_swept_name_are_verbatim(arguments: list[str]) -> None:
    assert fill(arguments, {"tp": "1"}) == tuple(arguments)


@given(st.lists(st.text(min_size=1, max_size=6), max_size=4))
def test_a_value_that_is_an_argument_of_its_own_may_be_several_words(words: list[str]) -> None:
    assert fill(["{extra}"], {"extra": shlex.join(words)}) == tuple(words)
    assert fill(["--a={extra}"], {"extra": "x y"}) == ("--a=x y",)


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:1/v1", True),
        ("http://localhost/v1", True),
        ("http://[::1]:2/v1", True),
        ("http://10.0.0.1/v1", False),
        ("http://localhost.example.com/v1", False),
    ],
)
def test_only_loopback_addresses_are_this_machine(url: str, here: bool) -> None:
    assert is_here(url) is here
