"""Sessions over servers of ours: both loops, every phase, and each engine's own way to its passes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moe_cap.errors import EngineCrashedError, ServerError
from moe_cap.measure.engines import (
    endpoint_session,
    llama_cpp,
    server,
    sglang,
    transformers_serve,
    transformers_serve_continuous,
    vllm,
)
from moe_cap.measure.engines.arrivals import ByArrivals
from moe_cap.measure.engines.base import Completion, Continuation, LaunchSpec
from moe_cap.measure.engines.dialect import DIALECTS
from moe_cap.measure.engines.endpoint_session import Attachment
from moe_cap.measure.engines.fingerprints import About
from moe_cap.measure.engines.launched import INSTALLED, ServerEngine, ServerSession
from moe_cap.measure.engines.openai_http import OpenAiHttp, ServedModel
from moe_cap.measure.engines.passes import UNALIGNED
from moe_cap.measure.engines.sglang_log import IN_TURN
from moe_cap.measure.engines.watched import Unwatched
from moe_cap.measure.load import (
    Limits,
    LoadPlan,
    LoadRun,
    RequestEvents,
    Rules,
    Target,
    TokenCounting,
    constant,
)
from moe_cap.measure.load.drive import Saturation
from moe_cap.measure.load.scheduling import AS_ALL, FIRST, NOT_PERMITTED
from moe_cap.measure.model_files import RANDOM_WEIGHTS, ModelFiles
from moe_cap.measure.profile.system import Launched
from tests.measure.test_server import ENGINE, mock, requests, server_pids

FIXTURES = Path(__file__).parent / "fixtures"
GAP_S, ALONE_S = 0.01, 1.0


@pytest.fixture
def session(tmp_path: Path) -> Iterator[ServerSession]:
    session = ENGINE.start(mock(), tmp_path / "engine.log")
    yield session
    session.stop()


def test_an_open_loop_is_timed_on_the_timed_server(session: ServerSession) -> None:
    session.serve(replace(mock(), argv=(*mock().argv, "--seed", "7")))
    recording = session.server
    run = session.run_arrivals(requests(3), constant(50.0, 3))
    assert recording.has_ended()
    assert [len(completion.tokens) for completion in run.completions] == [4] * 3


PHASES: dict[str, Callable[[ServerSession], object]] = {
    "closed loop": lambda session: session.run(requests(3), 2),
    "open loop": lambda session: session.run_arrivals(requests(3), constant(50.0, 3)),
    "scores": lambda session: session.score([Continuation((5,), (6,))]),
    "answers": lambda session: session.answer([[5, 6]], stop=["."], max_tokens=2),
}


@pytest.mark.parametrize("phase", PHASES)
def test_a_server_that_died_has_crashed_whatever_it_was_asked(session: ServerSession, phase: str) -> None:
    os.kill(server_pids(session.server)[1], signal.SIGKILL)
    with pytest.raises(EngineCrashedError, match=r"mock died \(exit status -9\)"):
        PHASES[phase](session)


def test_a_server_that_lives_and_answers_badly_has_not_crashed(
    session: ServerSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "CLEAR_S", 0.1)
    with pytest.raises(ServerError, match="HTTP 400"):
        PHASES["scores"](session)


class Tokenizer:
    """Every token is a character."""

    name = "characters"
    end_token = prefix_token = 0

    def encode(self, text: str, *, special_tokens: bool | None = None) -> list[int]:
        return [ord(character) for character in text]

    def decode(self, tokens: Any, *, special_tokens: bool = False) -> str:
        return "".join(map(chr, tokens))


def answered(plan: LoadPlan, *_measuring: object) -> LoadRun:
    """A server that is idle before every request, and gives a token every `GAP_S`."""
    events = []
    for index, prompt in enumerate(plan.prompts):
        sent_s = ALONE_S * (index + 1)
        token_s = tuple(sent_s + 0.03 + GAP_S * token for token in range(prompt.output_tokens))
        ids = tuple(range(65, 65 + prompt.output_tokens))
        told = RequestEvents(
            f"r{index}", index, sent_s, sent_s, None, sent_s, token_s, (1,) * len(ids), TokenCounting.TOKEN_IDS,
            token_s[-1], 200, "length", None, None, 0, "".join(map(chr, ids)), ids, None, None, len(ids),
        )  # fmt: skip
        events.append(told)
    return LoadRun(0.0, plan.arrivals, tuple(events), (), (Saturation((), (), 0.0, 0.0),), ())


SGLANG_SAID = "Prefill batch, #new-seq: 1, #new-token: 3, #cached-token: 0\n"
LLAMA_SAID = "llama_context: n_seq_max             = 64\nllama_context: n_ubatch              = 512\n"
ENGINES: dict[str, tuple[ServerEngine, str]] = {
    "vllm": (vllm.ENGINE, (FIXTURES / "vllm-0.32-cpu.log").read_text()),
    "sglang": (sglang.ENGINE, ""),
    "llama-cpp": (llama_cpp.ENGINE, LLAMA_SAID),
    "transformers-serve": (transformers_serve.ENGINE, ""),
    "transformers-serve-continuous": (transformers_serve_continuous.ENGINE, ""),
}


class Unstarted:
    """A server that is only looked at."""

    url, port = "http://127.0.0.1:1/v1", 1

    def __init__(self, said: str, log: Path) -> None:
        self.words, self.log = said, log

    def said(self) -> str:
        return self.words

    def fill(self, text: str) -> str:
        return str(self.log)

    def check_alive(self) -> None:
        raise EngineCrashedError("died")


def unstarted(engine: ServerEngine, said: str, files: ModelFiles, tmp_path: Path) -> ServerSession:
    """A session of this engine whose server was not started, and that notes which one it wanted."""
    server: Any = Unstarted(said, tmp_path / "engine.log")
    target = Target(server.url, "model")
    about = About(None, "1", {**IN_TURN})
    http, served_model = OpenAiHttp(server.url, {}), ServedModel("model", None)
    attachment = Attachment(http, about, served_model, Tokenizer(), target, DIALECTS[0], Limits(), Rules())
    session = engine.session(engine.launch_spec(files, "fp32"), server, attachment)
    served: list[LaunchSpec] = []
    vars(session)["served"], vars(session)["serve"] = served, served.append
    return session


@pytest.fixture(params=ENGINES)
def any_session(request: pytest.FixtureRequest, tiny_files: ModelFiles, tmp_path: Path) -> ServerSession:
    engine, said = ENGINES[request.param]
    return unstarted(engine, said, tiny_files, tmp_path)


@pytest.mark.parametrize("kind", ["closed", "open"])
def test_every_engine_tells_its_passes_in_closed_and_open_loops(
    any_session: ServerSession, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(plan: LoadPlan, *_measuring: object) -> LoadRun:
        any_session.server.words += SGLANG_SAID * len(plan.prompts)
        return answered(plan)

    monkeypatch.setattr(endpoint_session, "run_load", load)
    asked = requests(3)
    run = any_session.run(asked, 1) if kind == "closed" else any_session.run_arrivals(asked, constant(1.0, 3))
    assert run.no_steps_reason is None
    assert [step.kind.value for step in run.steps] == ["prefill", "decode", "decode", "decode"] * 3
    assert any_session.served[-1] is any_session._spec
    assert any_session._client_runs is not None


def test_the_client_runs_ahead_of_the_server_once_it_was_late(
    any_session: ServerSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = iter([(), ("12 ms late",), ()])
    monkeypatch.setattr(endpoint_session, "run_load", lambda *told: replace(answered(*told), late_client=next(late)))
    places = []
    for _ in range(3):
        any_session.load(requests(2), 1)
        places.append(any_session._client_runs)
    assert places[:2] == [AS_ALL, AS_ALL]
    assert places[2] in {FIRST, NOT_PERMITTED}


def test_every_engine_says_why_passes_are_not_known_where_arrivals_do_not_line_up(
    any_session: ServerSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_session, "run_load", answered)
    run = any_session.run_arrivals(requests(3, output_tokens=1), constant(1.0, 3))
    assert (run.steps, run.no_steps_reason) == ((), UNALIGNED)


@pytest.mark.parametrize("name", ["vllm", "sglang", "llama-cpp"])
def test_a_recording_server_that_died_has_crashed(
    name: str, tiny_files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, said = ENGINES[name]
    monkeypatch.setattr(llama_cpp.LlamaCppEngine, "session", lambda *given: llama_cpp.RecordedSession(*given))
    session = unstarted(engine, said, tiny_files, tmp_path)
    (asked,) = requests(1)
    answer = Completion(asked.id, (65, 66, 67, 68), 0.0, (), 0.0)
    with pytest.raises(EngineCrashedError):
        session.route([asked], [answer])
    assert session.served[-1] is not session._spec


@pytest.mark.parametrize(("installed", "told"), [(None, None), ("1", None), ("b1-own", "b1-own")])
def test_the_installed_version_is_told_where_the_server_calls_itself_otherwise(
    tiny_files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: str | None, told: str | None
) -> None:
    engine = transformers_serve.TransformersServeEngine()
    monkeypatch.setattr(transformers_serve, "ENGINE", engine)
    monkeypatch.setattr(engine, "version_in", lambda _home: installed)
    record = unstarted(engine, "", tiny_files, tmp_path).describe()
    assert (record.version, record.arguments.get(INSTALLED)) == ("1", told)
    assert Launched(engine.name).may_have_given(record)
    monkeypatch.setattr(engine, "version_in", lambda _home: "2")
    assert not Launched(engine.name).may_have_given(record)


@pytest.mark.parametrize(("told", "share"), [({}, 0.5), ({RANDOM_WEIGHTS: True}, 1.0)])
@pytest.mark.parametrize("name", ENGINES)
def test_blank_answers_are_believed_of_random_weights_alone(
    name: str,
    told: dict[str, bool],
    share: float,
    tiny_files: ModelFiles,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plans: list[LoadPlan] = []
    monkeypatch.setattr(endpoint_session, "run_load", lambda plan, *told: plans.append(plan) or answered(plan, *told))
    files = replace(tiny_files, config={**tiny_files.config, **told})
    unstarted(*ENGINES[name], files, tmp_path).load(requests(2), 1)
    assert plans[0].rules.max_degenerate_share == share


def test_pipeline_stages_of_vllm_hide_its_passes(tiny_files: ModelFiles, tmp_path: Path) -> None:
    engine, said = ENGINES["vllm"]
    assert isinstance(unstarted(engine, said, tiny_files, tmp_path).watch(), ByArrivals)
    staged = said.replace("pipeline_parallel_size=1", "pipeline_parallel_size=2")
    assert unstarted(engine, staged, tiny_files, tmp_path).watch() == Unwatched(vllm.STAGES)
