"""A stored trace answers for any batch size what the recorded tokens would have used."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_cap.cli import main
from moe_cap.errors import TraceError
from moe_cap.expert_trace import (
    ExpertTrace,
    activated_at,
    join_sequences,
    read_trace,
    recorded_batches,
    trace_name,
    write_trace,
)
from moe_cap.result import Load

EXPERTS, TOP_K, LAYERS = 16, 2, 3


def random_trace(sequences: int = 6, prompt: int = 4, decoded: int = 10, seed: int = 0) -> ExpertTrace:
    rng = np.random.default_rng(seed)
    ids = [
        np.stack([[rng.permutation(EXPERTS)[:TOP_K] for _ in range(LAYERS)] for _ in range(prompt + decoded + each)])
        for each in range(sequences)
    ]
    return join_sequences([one.astype(np.int16) for one in ids], [prompt] * sequences, EXPERTS)


def test_a_written_trace_reads_back_the_same(tmp_path: Path) -> None:
    trace = random_trace()
    write_trace(trace, tmp_path / "trace.npz")
    again = read_trace(tmp_path / "trace.npz")
    np.testing.assert_array_equal(again.experts, trace.experts)
    assert (again.positions, again.prompt_tokens, again.num_experts) == (
        trace.positions, trace.prompt_tokens, EXPERTS
    )  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["trace.npz"]


def test_one_sequence_uses_top_k_and_more_use_no_fewer() -> None:
    trace = random_trace()
    assert activated_at(trace, 1).by_layer == (TOP_K,) * LAYERS
    assert recorded_batches(trace) == (1, 2, 4)
    means = [activated_at(trace, size).mean for size in (1, 2, 3, 6)]
    assert means == sorted(means)


def test_batches_above_the_traced_sequences_are_drawn_and_say_so() -> None:
    trace = random_trace()
    assert not activated_at(trace, 6).drawn
    many = activated_at(trace, 40)
    assert many.drawn
    assert many == activated_at(trace, 40)
    assert activated_at(trace, 6).mean < many.mean <= EXPERTS


def test_a_drawn_batch_of_independent_tokens_is_the_uniform_expectation() -> None:
    trace = random_trace(sequences=20, decoded=60)
    expected = EXPERTS * (1 - (1 - TOP_K / EXPERTS) ** 25)
    assert activated_at(trace, 25).mean == pytest.approx(expected, rel=0.03)


@given(size=st.integers(-3, 200))
def test_no_batch_has_more_experts_than_there_are_or_fewer_than_top_k(size: int) -> None:
    trace = random_trace()
    if 1 <= size <= 60:
        assert all(TOP_K <= value <= EXPERTS for value in activated_at(trace, size).by_layer)
    else:
        with pytest.raises(TraceError, match=f"no batch of {size}: 60 tokens of 6 sequences"):
            activated_at(trace, size)


def test_a_trace_without_decode_steps_says_so() -> None:
    with pytest.raises(TraceError, match="no decode step"):
        activated_at(random_trace(decoded=0), 1)


@pytest.mark.parametrize("body", [b"", b"PK\x03\x04 cut", b"text"])
def test_another_file_is_no_trace(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(body)
    with pytest.raises(TraceError, match="no routing trace"):
        read_trace(tmp_path / "x.npz")


def test_a_trace_that_is_cut_off_or_does_not_hold_together_is_named(tmp_path: Path) -> None:
    path, whole = tmp_path / "x.npz", tmp_path / "whole.npz"
    write_trace(random_trace(), whole)
    body = whole.read_bytes()
    damaged = bytearray(body)
    damaged[len(body) // 3] ^= 0xFF
    for broken in (body[: len(body) // 2], body[:-1], bytes(damaged)):
        path.write_bytes(broken)
        with pytest.raises(TraceError, match=r"x\.npz is no routing trace"):
            read_trace(path)
    with np.load(whole) as told:
        arrays = dict(told)
    for wrong in (
        {"num_experts": np.asarray(3)},
        {"num_experts": np.asarray("many")},
        {"prompt_tokens": arrays["prompt_tokens"][:-1]},
        {"positions": arrays["positions"][:-1]},
        {"experts": arrays["experts"][0]},
    ):
        np.savez(path, **{**arrays, **wrong})
        with pytest.raises(TraceError, match=r"x\.npz is no routing trace"):
            read_trace(path)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(TraceError, match="no routing trace"):
        read_trace(tmp_path / "one.npy")


def test_no_two_loads_have_their_traces_in_one_file() -> None:
    opened = [Load(kind="open_loop", concurrency=None, request_rate_per_s=rate) for rate in (100.1, 100.2, 1e-7)]
    loads = [*opened, Load(kind="closed_loop", concurrency=100, request_rate_per_s=None)]
    assert len({trace_name(load) for load in loads}) == 4


def test_the_page_of_a_trace_holds_what_the_command_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, page = tmp_path / "trace.npz", tmp_path / "trace.html"
    write_trace(random_trace(), path)
    assert (
        main(["trace", str(path), "--batch", "3", "--batch", "1", "--batch", "48", "--json", "--html", str(page)]) == 0
    )
    told = json.loads(capsys.readouterr().out)
    (curves, heat) = drawn_on(page)
    traced, drawn, uniform = curves
    means = {one["batch_size"]: one["mean"] for one in told["batches"]}
    assert (traced["name"], read(traced["x"]), read(traced["y"])) == (
        "as traced", [1, 3], pytest.approx([means[1], means[3]])
    )  # fmt: skip
    assert (drawn["name"], read(drawn["x"]), read(drawn["y"])) == (
        "drawn from tokens of different steps", [48], pytest.approx([means[48]])
    )  # fmt: skip
    assert uniform["name"] == "uniform routing"
    assert read(uniform["y"])[0] == pytest.approx(TOP_K)
    assert read(heat[0]["z"]) == told["expert_tokens"]
    assert "Routing trace trace.npz" in page.read_text()


def drawn_on(page: Path) -> list[list[dict[str, Any]]]:
    """The data of every drawing of a page, as plotly's script is given it."""
    return [
        json.JSONDecoder().raw_decode(page.read_text(), found.end())[0]
        for found in re.finditer(r'Plotly\.newPlot\(\s*"panel-\d+",\s*', page.read_text())
    ]


def read(values: Any) -> list[Any]:
    """Numbers as plotly writes them: a list, or the base64 of an array."""
    if isinstance(values, list):
        return values
    array = np.frombuffer(base64.b64decode(values["bdata"]), dtype=values["dtype"])
    shape = [int(side) for side in str(values.get("shape", len(array))).split(",")]
    told: list[Any] = array.reshape(shape).tolist()
    return told


def test_the_command_answers_for_any_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "trace.npz"
    write_trace(random_trace(), path)
    page = tmp_path / "trace.html"
    assert main(["trace", str(path), "--batch", "3", "--batch", "48", "--json", "--html", str(page)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(one["batch_size"], one["drawn"]) for one in told["batches"]] == [(3, False), (48, True)]
    assert told["batches"][0]["uniform"] == pytest.approx(EXPERTS * (1 - (1 - TOP_K / EXPERTS) ** 3))
    assert np.sum(told["expert_tokens"]) == TOP_K * LAYERS * len(random_trace().experts)
    assert "plotly" in page.read_text()
    assert main(["trace", str(path), "--by-layer"]) == 0
    assert "layer 2" in capsys.readouterr().out
    assert main(["trace", str(tmp_path / "none.npz")]) == 2
