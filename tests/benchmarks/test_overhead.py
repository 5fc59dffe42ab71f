"""The arithmetic of `benchmarks/overhead*.py`, and both sides on engines that cost nothing; no timing is asserted."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import overhead, overhead_level
from benchmarks.overhead_bare import GenerateLoop, RawClient, body_of, read_answer
from benchmarks.overhead_figures import (
    Block,
    Pass,
    Ratio,
    RoutingCost,
    believed,
    carry_block,
    carry_blocks,
    median_of,
    quiet_ratio_of,
    ratio_of,
)
from benchmarks.overhead_level import Level, Row
from moe_cap.errors import EngineStartError, InvalidRunError, ServerError
from moe_cap.measure.engines import transformers
from moe_cap.measure.engines.base import Request
from moe_cap.measure.engines.fake import ENGINE as FAKE
from moe_cap.measure.mock_script import Behaviour
from moe_cap.measure.mock_server import MockServer
from moe_cap.measure.model_files import ModelFiles, find_model
from moe_cap.measure.power import PowerMeter
from moe_cap.routing import RoutingSource
from moe_cap.submission import Submission
from tests.measure.tiny_models import write_model

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # lm-eval's own

SECONDS = st.floats(1e-4, 10.0)


def took(tpot_s: float, said: str = "") -> Pass:
    return Pass(tpot_s, 10 * tpot_s, 2 * tpot_s, (said,))


def block(bare_s: float, ours_s: float) -> Block:
    return Block((took(bare_s), took(bare_s)), (took(ours_s), took(ours_s)))


def tpot(each: Pass) -> float:
    return each.tpot_s


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return find_model(Submission(model=str(write_model(tmp_path_factory.mktemp("tiny")))))


def requests(number: int, tokens: int = 5) -> tuple[Request, ...]:
    return tuple(Request(f"r{index}", tuple(range(3 + index, 11 + index)), tokens) for index in range(number))


@given(SECONDS, st.floats(0.5, 2.0), st.floats(-0.1, 0.5), st.sampled_from(["ABBA", "BAAB"]))
def test_a_steady_drift_cancels(base_s: float, factor: float, drift: float, order: str) -> None:
    now = iter(range(4))
    bare: Callable[[], Pass] = lambda: took(base_s * (1 + drift * next(now)))  # noqa: E731
    ours: Callable[[], Pass] = lambda: took(factor * base_s * (1 + drift * next(now)))  # noqa: E731
    assert carry_block(bare, ours, order).ratio(tpot) == pytest.approx(factor)


@given(st.lists(st.tuples(SECONDS, SECONDS), min_size=2, max_size=8))
def test_the_interval_holds_the_median_and_lies_within_the_blocks(pairs: list[tuple[float, float]]) -> None:
    blocks = [block(bare_s, ours_s) for bare_s, ours_s in pairs]
    ratios = sorted(ours_s / bare_s for bare_s, ours_s in pairs)
    found = ratio_of(blocks, tpot)
    ordered = [ratios[0], found.low, found.value, found.high, ratios[-1]]
    assert all(below <= above * (1 + 1e-9) for below, above in itertools.pairwise(ordered)), "up to rounding"


def test_the_ratio_of_both_sides_has_its_golden_value() -> None:
    blocks = [block(0.010, 0.0101), block(0.010, 0.0102), block(0.020, 0.0206)]
    assert ratio_of(blocks, tpot).value == pytest.approx(1.02)
    assert median_of(blocks, "bare", tpot) == 0.010
    assert median_of(blocks, "ours", lambda each: each.wall_s) == pytest.approx(0.102)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.995, 1.01, "kept"), (1.0101, 1.2, "missed"), (1.0, 1.02, "not decided"), (1.01, 1.02, "not decided"),
        (0.5, 0.98, "too low"), (0.5, 0.999, "kept"),
    ],
)  # fmt: skip
def test_the_limit_is_missed_only_where_the_whole_interval_lies_above(low: float, high: float, verdict: str) -> None:
    assert Ratio((low + high) / 2, low, high).verdict(1.01) == verdict


@given(st.lists(st.tuples(SECONDS, SECONDS), min_size=2, max_size=8), st.floats(0.5, 2.0))
def test_the_quiet_passes_tell_a_steady_cost_whatever_disturbed_the_others(
    pairs: list[tuple[float, float]], factor: float
) -> None:
    quiet = [block(0.00001, factor * 0.00001)] * (len(pairs) + 1)
    found = quiet_ratio_of([*quiet, *itertools.starmap(block, pairs)], tpot)
    assert found.value == pytest.approx(factor)
    assert found.low <= found.value * (1 + 1e-9)
    assert found.value <= found.high * (1 + 1e-9)


def test_the_quiet_ratio_has_its_golden_value() -> None:
    assert quiet_ratio_of([block(0.010, 0.011), block(0.020, 0.044)], tpot).value == pytest.approx(1.1)


def test_sides_take_turns() -> None:
    seen: list[str] = []
    carry_blocks(lambda: seen.append("A") or took(1.0), lambda: seen.append("B") or took(1.0), 3)
    assert "".join(seen) == "ABBABAABABBA"


def test_a_refused_pass_drops_its_whole_block() -> None:
    calls = iter(range(100))

    def ours() -> Pass:
        if next(calls) == 1:  # the second pass of the first block
            raise InvalidRunError("the client was late")
        return took(1.0)

    bare = iter(map(float, range(1, 100)))
    blocks, refused = carry_blocks(lambda: took(next(bare)), ours, 2)
    assert refused == 1
    assert [[each.tpot_s for each in kept.bare] for kept in blocks] == [[2.0, 3.0], [4.0, 5.0]]


def test_an_engine_that_is_always_refused_fails_and_says_why() -> None:
    def ours() -> Pass:
        raise InvalidRunError("the client was late")

    with pytest.raises(InvalidRunError, match=r"0 of 6 blocks could be believed.*the client was late"):
        carry_blocks(lambda: took(1.0), ours, 2)


def test_a_single_pass_is_carried_again_until_it_is_believed() -> None:
    left = iter([InvalidRunError("late"), InvalidRunError("late")])

    def carry() -> Pass:
        if (refusal := next(left, None)) is not None:
            raise refusal
        return took(3.0)

    assert believed(carry) == took(3.0)
    left = iter([InvalidRunError("late")] * 3)
    with pytest.raises(InvalidRunError, match="late"):
        believed(carry)


def test_answers_that_both_sides_gave_are_counted() -> None:
    bare, ours = Pass(1.0, 1.0, 1.0, ("a", "b")), Pass(1.0, 1.0, 1.0, ("a", "c"))
    assert Row("e", "1", 1, (Block((bare, bare), (ours, bare)),), 0, None).agreeing == 0.75


def test_the_price_of_the_routing_pass() -> None:
    cost = RoutingCost((2.0, 2.0, 9.0), first_s=13.0, again_s=(3.0, 3.0, 8.0), back_s=7.0, steps=None)
    assert (cost.share, cost.share_with_starts, cost.step_s) == (1.5, 10.0, None)
    assert cost.starts_s == (10.0, 7.0)
    in_process = RoutingCost((2.0,), first_s=2.5, again_s=(3.0,), back_s=None, steps=100)
    assert (in_process.share_with_starts, in_process.starts_s) == (1.5, None)
    assert in_process.step_s == pytest.approx(0.010)


def event(text: str, finish: str | None = None) -> bytes:
    return b"data: " + json.dumps({"choices": [{"text": text, "finish_reason": finish}]}).encode() + b"\n\n"


def test_a_stream_is_read_however_it_was_cut() -> None:
    stream = event("a") + event("b") + event("c", "length") + b"data: [DONE]\n\n"
    whole = [(1.0, event("a")), (2.0, event("b")), (4.0, event("c", "length") + b"data: [DONE]\n\n")]
    assert read_answer(whole, 3) == (1.5, "abc")
    by_byte = [(float(at), stream[at : at + 1]) for at in range(len(stream))]
    first, last = stream.index(b"\n"), len(stream) - len(b"\n\ndata: [DONE]\n\n")
    assert read_answer(by_byte, 3) == ((last - first) / 2, "abc")


def test_an_event_after_the_last_token_does_not_count() -> None:
    arrived = [(1.0, event("a")), (2.0, event("b")), (9.0, event("", "length"))]
    assert read_answer(arrived, 2) == (1.0, "ab")


@pytest.mark.parametrize("ending", [event("b", "stop"), event("b"), b'data: {"error": "dead"}\n\n'])
def test_an_answer_of_another_length_is_refused(ending: bytes) -> None:
    with pytest.raises(ServerError, match="an answer of 2 tokens"):
        read_answer([(1.0, event("a")), (2.0, ending)], 2)


def test_a_body_is_read_however_the_server_frames_it() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunked = [(1.0, head + b"3\r\nabc\r\n2\r"), (2.0, b"\nde\r\n"), (3.0, b"0\r\n\r\n"), (4.0, b"")]
    assert [*body_of(chunked, "it")] == [(1.0, b"abc"), (2.0, b"de")]
    until_closed = [(1.0, b"HTTP/1.1 200 OK\r\n\r\nab"), (2.0, b"c"), (3.0, b"")]
    assert [*body_of(until_closed, "it")] == [(1.0, b"ab"), (2.0, b"c")]


@pytest.mark.parametrize("said", [b"hello\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab"])
def test_what_is_no_whole_response_is_refused(said: bytes) -> None:
    with pytest.raises(ServerError, match="RemoteProtocolError"):
        list(body_of([(1.0, said), (2.0, b"")], "it"))


def test_the_raw_client_keeps_its_users_busy_and_reads_every_answer() -> None:
    with MockServer(Behaviour(ttft_s=0.001, itl_s=0.001)) as server:
        carried = RawClient(f"{server.url}/completions", "mock").carry(requests(5), 2)
        asked = len(server.log)
    assert carried.tpot_s > 0
    assert len(carried.answers) == asked == 5
    assert all(carried.answers)


def test_a_server_that_refuses_is_named() -> None:
    with (
        MockServer(Behaviour()) as server,
        pytest.raises(ServerError, match="404"),
    ):
        RawClient(f"{server.url}/nowhere", "mock").carry(requests(1), 1)


@pytest.mark.model
def test_both_sides_of_transformers_say_the_same(files: ModelFiles, tmp_path: Path) -> None:
    spec = transformers.ENGINE.launch_spec(files, "fp32")
    session = transformers.ENGINE.start(spec, tmp_path / "log")
    level = Level(session, spec, requests(4), 2, PowerMeter(None, "none"))
    row = level.measure(2, RoutingSource.LOCK_STEP)
    assert row.agreeing == 1.0
    assert row.routing is not None
    assert row.routing.steps == 2 * 5, "two batches of five tokens"
    assert row.routing.back_s is None
    assert isinstance(overhead_level.driver_of(session, spec), GenerateLoop)


@pytest.fixture
def fake_level(files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Level:
    spec = FAKE.launch_spec(files, "bf16")
    level = Level(FAKE.start(spec, tmp_path / "log"), spec, requests(4), 2, PowerMeter(None, "none"))

    class Bare:
        def carry(self, _requests: object, _batch: int) -> Pass:
            return Pass(0.010, 0.1, 0.0, level.ours().answers)

    monkeypatch.setattr(overhead_level, "driver_of", lambda _session, _spec: Bare())
    return level


def test_our_side_is_what_the_engine_did(fake_level: Level) -> None:
    row = fake_level.measure(3, RoutingSource.LOCK_STEP)
    assert row.tpot.value == pytest.approx(1.1), "11 ms a step of two sequences, over 10"
    assert row.tpot.low == pytest.approx(1.1)
    assert (row.refused, row.agreeing, len(row.blocks)) == (0, 1.0, 3)
    assert row.routing is not None
    assert row.routing.steps == 10


def test_an_engine_without_routing_has_no_price_of_it(fake_level: Level) -> None:
    assert fake_level.routing(None, (1.0,)) is None


def test_an_engine_that_nobody_drives_bare_is_refused(files: ModelFiles, tmp_path: Path) -> None:
    spec = FAKE.launch_spec(files, "bf16")
    with pytest.raises(TypeError, match="FakeSession has no bare side"):
        overhead_level.driver_of(FAKE.start(spec, tmp_path / "log"), spec)


def rows_of(ratio: float) -> list[Row]:
    cost = RoutingCost((2.0,), 13.0, (3.0,), 7.0, None)
    return [Row("engine", "1", 8, (block(0.010, 0.010 * ratio),) * 3, 1, cost, client_tokens=1000)]


@pytest.mark.parametrize(("ratio", "code", "verdict"), [(1.009, 0, "kept"), (1.02, 1, "missed")])
def test_the_command_prints_both_tables_and_keeps_everything(
    ratio: float,
    code: int,
    verdict: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(overhead, "measure", lambda name, asked: iter(rows_of(ratio)))
    assert overhead.main(["--engine", "transformers", "--json", str(tmp_path / "out.json")]) == code
    table = capsys.readouterr().out
    assert f"| engine 1 | 8 | 10.000 | {10 * ratio:.3f} | {ratio:.4f} " in table
    assert f"| {verdict} |" in table
    assert f"| 20 / {20 * ratio:.0f} |" in table, "microseconds of both clients"
    assert "| 1 of 4 |" in table
    assert "| engine 1 | 8 | 2.000 | 3.000 | 1.50 | 10.0 + 7.0 | 10.00 |  |" in table
    (row,) = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert row["verdict"] == verdict
    assert [side["tpot_s"] for side in row["blocks"][0]["bare"]] == [0.010, 0.010]


def test_the_blocks_of_all_rows_are_one_figure_too() -> None:
    rows = [*rows_of(1.0), *rows_of(1.004), *rows_of(1.008)]
    *_, together = overhead.timing_table(rows)
    assert together.startswith("| all | | | | 1.0040 (1.0000 to 1.0080) | kept |")
    assert together.endswith("| 3 of 12 |")
    assert not any(line.startswith("| all") for line in overhead.timing_table(rows_of(1.0)))


def test_an_engine_that_does_not_start_is_told_and_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(name: str, asked: object) -> Iterator[Row]:
        if name == "vllm":
            raise EngineStartError("it wants heads of 32")
        yield from rows_of(1.0)

    monkeypatch.setattr(overhead, "measure", measure)
    assert overhead.main(["--engine", "vllm", "transformers"]) == 0
    assert "vllm was not measured: it wants heads of 32" in capsys.readouterr().err
    assert overhead.main(["--engine", "vllm"]) == 1, "nothing was measured"


def test_one_round_has_no_spread(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        overhead.main(["--rounds", "1"])
    assert "at least 2 rounds" in capsys.readouterr().err
