"""A stored trace answers for any batch size what the recorded tokens would have used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_cap.cli import main
from moe_cap.errors import TraceError
from moe_cap.expert_trace import ExpertTrace, activated_at, join_sequences, read_trace, recorded_batches, write_trace

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
