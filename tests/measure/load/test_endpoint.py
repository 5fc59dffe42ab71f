import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from load_plans import PATIENT, QUICK

from moe_cap.architecture import parse_config
from moe_cap.errors import AccessDeniedError, EngineStartError, InvalidRunError, ServerError
from moe_cap.measure.engines.base import Completion, Continuation, Engine, Request, Session, Untold
from moe_cap.measure.engines.dialect import brief
from moe_cap.measure.engines.endpoint import EndpointEngine
from moe_cap.measure.engines.endpoint_session import EndpointSession
from moe_cap.measure.engines.fingerprints import NOBODY, About
from moe_cap.measure.engines.openai_http import OpenAiHttp, ServedModel, parse_score
from moe_cap.measure.engines.watched import UNTOLD_STAGES, Unwatched
from moe_cap.measure.load import Limits, Rules, TokenCounting
from moe_cap.measure.lock_step import check_lengths
from moe_cap.measure.mock_script import Behaviour, Fault
from moe_cap.measure.mock_server import MockServer
from moe_cap.measure.model_files import ModelFiles, find_model
from moe_cap.measure.publishable import publishable
from moe_cap.metrics.parallelism import Parallelism
from moe_cap.precision import storage_of
from moe_cap.result import EngineRecord
from moe_cap.routing import RoutingSource
from moe_cap.submission import Submission

Serve = Callable[[Behaviour], MockServer]
SHIPPED = Path(__file__).resolve().parents[3] / "assets" / "cap-tiny-moe"
FILES = ModelFiles("mock-moe", "0", Path("/nowhere"), {"max_position_embeddings": 512}, ())


class WordTokenizer:
    """Counts as the mock server does."""

    name = "words"
    end_token = prefix_token = 0

    def encode(self, text: str, *, special_tokens: bool | None = None) -> list[int]:
        return [len(word) for word in text.split()]

    def decode(self, tokens: Sequence[int], *, special_tokens: bool = False) -> str:
        return " ".join("x" * token for token in tokens)


def engine(url: str, **changes: Any) -> EndpointEngine:
    told = {
        "limits": Limits(connect_s=2.0, silence_s=0.4, request_s=10.0),
        "rules": PATIENT,
        "read_tokenizer": lambda _files: WordTokenizer(),
    }
    return EndpointEngine(url, **(told | changes))


def attach(server: MockServer, tmp_path: Path, **changes: Any) -> EndpointSession:
    chosen = engine(server.url, **changes)
    return chosen.start(chosen.launch_spec(FILES, "bf16"), tmp_path / "log.txt")


def requests(count: int, output_tokens: int = 4) -> list[Request]:
    return [Request(f"q{index}", (5, 6, 7 + index), output_tokens) for index in range(count)]


def test_a_timed_pass_gives_the_tokens_and_their_times(serve: Serve, tmp_path: Path) -> None:
    server = serve(QUICK)
    session = attach(server, tmp_path)
    before = time.monotonic()
    run = session.run(requests(6), 2)
    assert [completion.request_id for completion in run.completions] == [f"q{index}" for index in range(6)]
    assert before < run.started_s <= run.ended_s < time.monotonic()
    for completion in run.completions:
        assert len(completion.tokens) == len(completion.token_s) == 4
        assert run.started_s <= completion.sent_s < completion.token_s[0] <= completion.ended_s <= run.ended_s
        assert completion.error is None
    assert run.steps == ()
    assert session.describe().arguments["client_dialect"] == "token ids"
    session.stop()


def test_a_timed_server_is_asked_for_one_count_of_its_tokens_and_not_for_two(serve: Serve, tmp_path: Path) -> None:
    told, silent = serve(QUICK), serve(replace(QUICK, token_ids=False))
    with_ids, without = attach(told, tmp_path), attach(silent, tmp_path)
    assert without.describe().arguments["client_dialect"] == "running usage"
    assert {answer.counting for answer in with_ids.load(requests(2), 2).requests} == {TokenCounting.TOKEN_IDS}
    assert {answer.counting for answer in without.load(requests(2), 2).requests} == {TokenCounting.RUNNING_USAGE}
    assert not with_ids._target.running_usage


def test_a_server_that_refuses_our_fields_is_spoken_to_plainly(serve: Serve, tmp_path: Path) -> None:
    session = attach(serve(Behaviour(ttft_s=0.01, itl_s=0.001, refuse_extras=True)), tmp_path)
    assert session.describe().arguments["client_dialect"] == "final usage only"
    run = session.run(requests(4), 2)
    assert {(completion.num_tokens, len(completion.token_s)) for completion in run.completions} == {(4, 4)}
    session.stop()


PLAIN = Behaviour(ttft_s=0.01, itl_s=0.001, refuse_extras=True)
"""An ordinary server: no token ids, and usage at the end alone."""


class OtherWords(WordTokenizer):
    """Does not find as many tokens in an answer as it was made of."""

    def encode(self, text: str, *, special_tokens: bool | None = None) -> list[int]:
        return super().encode(text) if special_tokens is None else [1]


def test_tokens_that_nobody_can_tell_are_not_made_up(serve: Serve, tmp_path: Path) -> None:
    chosen = engine(serve(replace(PLAIN, tokens_per_chunk=2)).url)
    session = chosen.start(chosen.launch_spec(find_model(Submission(model=str(SHIPPED))), "bf16"), tmp_path / "log.txt")
    with pytest.raises(InvalidRunError, match="does not tell which tokens"):
        session.run(requests(4), 2)
    assert len(session.load(requests(4), 2).requests) == 4
    session.stop()


def test_a_plain_server_is_measured_where_nobody_asks_which_tokens_it_said(serve: Serve, tmp_path: Path) -> None:
    asked = requests(4)
    session = attach(serve(PLAIN), tmp_path, read_tokenizer=lambda _files: OtherWords())
    run = session.run(asked, 2)
    check_lengths(asked, run.completions)
    for done in run.completions:
        assert (done.tokens, done.num_tokens, len(done.token_s)) == ((), 4, 4)
        assert len(done.text(session.tokenizer).split()) == 4
    assert session.route(asked, run.completions) == ()
    session.stop()


def test_several_tokens_in_a_piece_have_the_times_of_the_pieces_and_the_servers_count(
    serve: Serve, tmp_path: Path
) -> None:
    asked = requests(4)
    session = attach(serve(replace(PLAIN, tokens_per_chunk=3)), tmp_path)
    run = session.run(asked, 2)
    check_lengths(asked, run.completions)
    assert {(done.num_tokens, len(done.token_s)) for done in run.completions} == {(4, 2)}
    session.stop()


def test_an_untold_answer_that_is_too_short_or_has_no_times_is_refused() -> None:
    (asked,) = requests(1)
    whole = Completion(asked.id, (), 0.0, (1.0, 2.0), 2.0, untold=Untold("four words it has", 4))
    check_lengths([asked], [whole])
    for broken in (replace(whole, untold=Untold("three it has", 3)), replace(whole, token_s=())):
        with pytest.raises(InvalidRunError, match="instead of 4"):
            check_lengths([asked], [broken])


def test_requests_that_failed_stay_in_the_run_as_failed(serve: Serve, tmp_path: Path) -> None:
    server = serve(Behaviour(ttft_s=0.01, itl_s=0.001, fault=Fault.DIE, fault_every=4))
    session = attach(server, tmp_path, rules=Rules(10, 10, max_failed_share=0.5))
    failed = [completion for completion in session.run(requests(8), 2).completions if completion.error is not None]
    assert len(failed) == 2
    assert {len(completion.token_s) for completion in failed} == {2}
    session.stop()


def test_answers_stop_where_the_model_stops(serve: Serve, tmp_path: Path) -> None:
    session = attach(serve(QUICK), tmp_path)
    answers = session.answer([(1, 2), (3, 4, 5)], stop=["\n"], max_tokens=3)
    assert len(answers) == 2
    assert all(len(answer.split()) == 3 for answer in answers)
    session.stop()


def test_the_context_is_as_long_as_the_server_or_the_configuration_says(serve: Serve, tmp_path: Path) -> None:
    session = attach(serve(QUICK), tmp_path)
    assert session.max_tokens == 512
    session.stop()


@pytest.mark.parametrize(
    ("behaviour", "error", "says"),
    [
        (Behaviour(added_prompt_tokens=2), InvalidRunError, "another tokenizer"),
        (Behaviour(fault=Fault.FEWER_TOKENS, fault_after=1), InvalidRunError, "1 tokens answered where 2"),
        (Behaviour(fault=Fault.NO_USAGE), InvalidRunError, "told no usage"),
        (Behaviour(fault=Fault.STATUS_500), ServerError, "500"),
        (Behaviour(fault=Fault.STATUS_429), ServerError, "429"),
        (Behaviour(fault=Fault.HANG), ServerError, "silent"),
        (Behaviour(ttft_s=0.01, itl_s=0.001, fault=Fault.ENDLESS), ServerError, "too_much"),
        (Behaviour(fault=Fault.STALL, fault_after=1), ServerError, "silent"),
        (Behaviour(fault=Fault.DIE, fault_after=1), ServerError, "died"),
        (Behaviour(fault=Fault.GARBAGE_STREAM), ServerError, "garbage"),
        (Behaviour(fault=Fault.GARBAGE_HTTP), ServerError, "garbage"),
    ],
)
def test_a_bad_server_is_found_out_when_it_is_attached(
    serve: Serve, tmp_path: Path, behaviour: Behaviour, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        attach(serve(behaviour), tmp_path)


def test_the_two_tokens_of_attaching_take_two_silences_at_most() -> None:
    limits = Limits(connect_s=1.0, silence_s=3.0, request_s=3600.0)
    assert brief(limits) == Limits(connect_s=1.0, silence_s=3.0, request_s=6.0)
    assert brief(replace(limits, request_s=2.0)).request_s == 2.0


def test_the_endpoint_stands_at_the_engines_waist(serve: Serve, tmp_path: Path) -> None:
    chosen: Engine = engine(serve(QUICK).url)
    session: Session = chosen.start(chosen.launch_spec(FILES, "bf16"), tmp_path / "log.txt")
    architecture = parse_config(json.loads((SHIPPED / "config.json").read_text()))
    assert session.storage(architecture) == storage_of(architecture, "bf16")
    assert session.describe().weights_dtype == "bf16"
    session.stop()


def test_a_model_that_is_not_served_is_named_with_those_that_are(serve: Serve, tmp_path: Path) -> None:
    with pytest.raises(EngineStartError, match="no model 'other'; it serves: mock"):
        attach(serve(QUICK), tmp_path, model="other")


def test_a_wrong_address_is_no_start(serve: Serve, tmp_path: Path) -> None:
    wrong = engine(serve(QUICK).url + "/nothing/here")
    with pytest.raises(EngineStartError, match="404"):
        wrong.start(wrong.launch_spec(FILES, "bf16"), tmp_path / "log.txt")
    found = wrong.probe()
    assert not found.installed
    assert found.reason is not None
    assert "404" in found.reason


def test_a_server_that_answers_can_be_measured(serve: Serve) -> None:
    found = engine(serve(QUICK).url).probe()
    assert (found.installed, found.reason, found.routing) == (True, None, RoutingSource.REPLAY)


def test_devices_of_a_vllm_that_may_be_pipeline_stages_hide_its_steps(serve: Serve, tmp_path: Path) -> None:
    server, vllm, stages = serve(QUICK), About("vllm", "1"), Unwatched(UNTOLD_STAGES)
    assert attach(server, tmp_path, about=vllm, num_devices=2).watch() == stages
    assert attach(server, tmp_path, about=vllm).watch() != stages
    told = replace(vllm, parallel=Parallelism(tp=2))
    assert attach(server, tmp_path, about=told, num_devices=2).watch() != stages


def told(answers: dict[str, Any]) -> OpenAiHttp:
    """A server that answers GET paths from a table, everything else with 404."""

    def handle(request: httpx2.Request) -> httpx2.Response:
        answer = answers.get(request.url.path)
        if isinstance(answer, str):
            return httpx2.Response(200, text=answer)
        return httpx2.Response(404) if answer is None else httpx2.Response(200, json=answer)

    return OpenAiHttp("http://engine/v1", {}, transport=httpx2.MockTransport(handle))


def owned_by(owner: str) -> dict[str, Any]:
    return {"data": [{"id": "m", "owned_by": owner}]}


@pytest.mark.parametrize(
    ("answers", "name", "version"),
    [
        ({"/version": {"version": "0.32.0"}, "/v1/models": owned_by("vllm")}, "vllm", "0.32.0"),
        ({"/version": {"version": "0.32.0"}, "/v1/models": owned_by("me"), "/metrics": "vllm:x 1"}, "vllm", "0.32.0"),
        ({"/version": {"version": "1.2.1"}, "/v1/models": owned_by("tensorrt_llm"), "/metrics": ""}, None, None),
        ({"/version": {"version": "1.2.1"}}, None, None),
        ({"/get_server_info": {"version": "0.5.23", "tp_size": 2, "internal_states": [{}]}}, "sglang", "0.5.23"),
        ({"/props": {"build_info": "b11434", "total_slots": 4}}, "llama-cpp", "b11434"),
        ({}, None, None),
    ],
)
def test_an_engine_is_named_by_its_own_words(answers: dict[str, Any], name: str | None, version: str | None) -> None:
    about = told(answers).about()
    assert (about.name, about.version) == (name, version)


SGLANG = {"version": "0.5.23", "dtype": "bfloat16", "kv_cache_dtype": "auto", "tp_size": 8}


@pytest.mark.parametrize(
    ("changes", "devices", "attention", "kv_dtype"),
    [
        ({}, 8, 8, "bf16"),
        ({"dp_size": 2, "ep_size": 16, "kv_cache_dtype": "fp8_e4m3"}, 16, 8, "fp8_e4m3"),
        ({"dp_size": 8, "ep_size": 8, "enable_dp_attention": True}, 8, 1, "bf16"),
        ({"pp_size": 2}, 16, 8, "bf16"),
    ],
)
def test_sglang_tells_over_how_many_devices_it_is_spread_and_in_which_formats(
    changes: dict[str, Any], devices: int, attention: int, kv_dtype: str
) -> None:
    about = told({"/get_server_info": SGLANG | changes}).about()
    assert about.parallel is not None
    assert (about.parallel.num_devices, about.parallel.tp) == (devices, attention)
    assert (about.compute_dtype, about.kv_dtype) == ("bf16", kv_dtype)


def test_an_attached_session_has_the_layout_that_its_server_tells(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = told({"/get_server_info": SGLANG | {"kv_cache_dtype": "fp8_e4m3"}}).about()
    monkeypatch.setattr(OpenAiHttp, "about", lambda _http: about)
    session = attach(serve(QUICK), tmp_path)
    record = session.describe()
    assert (record.tensor_parallel, record.compute_dtype, record.kv_dtype) == (8, "bf16", "fp8_e4m3")
    architecture = parse_config(json.loads((SHIPPED / "config.json").read_text()))
    assert session.storage(architecture).kv.bits == 8
    session.stop()


def test_what_a_server_is_outlasts_its_start_and_tells_it_from_another() -> None:
    first, again, other = (
        told({"/get_server_info": SGLANG | changes}).about()
        for changes in ({"random_seed": 7}, {"random_seed": 8, "max_total_num_tokens": 5}, {"tp_size": 4})
    )
    assert again.fits(recorded(first))
    assert not other.fits(recorded(first))
    assert not About("vllm", "0.33.0").fits(recorded(About("vllm", "0.32.0")))


def test_a_server_that_tells_nothing_of_itself_is_not_taken_for_another() -> None:
    vllm = About("vllm", "0.32.0")
    assert NOBODY.fits(recorded(vllm))
    assert vllm.fits(recorded(NOBODY))


def recorded(about: About) -> EngineRecord:
    formats = {"weights_dtype": None, "kv_dtype": None, "compute_dtype": None}
    told = publishable({**about.arguments, "served_model": "m"})
    return EngineRecord(name=about.name or "endpoint", version=about.version, arguments=told, **formats)


def test_models_are_read_with_their_longest_sequence() -> None:
    http = told({"/v1/models": {"data": [{"id": "a", "max_model_len": 4096}, {"id": "b"}]}})
    assert http.models() == (ServedModel("a", 4096), ServedModel("b", None))


@pytest.mark.parametrize("answer", [{"data": [7]}, {"models": []}, [1], "x"])
def test_something_that_is_no_list_of_models_is_refused(answer: Any) -> None:
    with pytest.raises(ServerError):
        told({"/v1/models": answer}).models()


ECHO = {
    "choices": [
        {
            "logprobs": {
                "token_logprobs": [None, -1.0, -0.5, -2.0, -0.1],
                "top_logprobs": [None, {"a": -1.0}, {"b": -0.5}, {"c": -0.7}, {"d": -0.1}],
            }
        }
    ]
}


def test_a_score_is_that_of_the_continuation_alone() -> None:
    score = parse_score(ECHO, Continuation((1, 2), (3,)))
    assert (score.log_probability, score.is_greedy) == (-0.5, True)
    score = parse_score(ECHO, Continuation((1, 2), (3, 4)))
    assert (score.log_probability, score.is_greedy) == (-2.5, False)


@pytest.mark.parametrize(
    ("record", "says"),
    [({"choices": [{"text": "x"}]}, "does not echo"), ({"choices": []}, "does not echo"), (ECHO, "another tokenizer")],
)
def test_a_server_that_cannot_echo_cannot_be_scored(record: dict[str, Any], says: str) -> None:
    with pytest.raises(ServerError, match=says):
        parse_score(record, Continuation((1,), (2,) * 9))


@pytest.mark.model
def test_routing_is_replayed_on_the_very_tokens(serve: Serve, tmp_path: Path) -> None:
    chosen = engine(serve(QUICK).url)
    session = chosen.start(chosen.launch_spec(find_model(Submission(model=str(SHIPPED))), "bf16"), tmp_path / "log.txt")
    asked = requests(2)
    rows = session.route(asked, session.run(asked, 2).completions)
    assert [row.request_id for row in rows] == ["q0", "q1"]
    assert {row.experts.shape[0] for row in rows} == {3 + 4 - 1}
    session.stop()


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_weights_that_the_server_packed_are_not_replayed_by_others(
    serve: Serve, tmp_path: Path, precision: str
) -> None:
    chosen = engine(serve(QUICK).url)
    files = find_model(Submission(model=str(SHIPPED)))
    session = chosen.start(chosen.launch_spec(files, precision), tmp_path / "log.txt")
    asked = requests(2)
    assert session.route(asked, session.run(asked, 2).completions) == ()
    session.stop()


def test_connections_that_llama_server_closes_are_not_used_again() -> None:
    assert told({"/v1/models": {}, "/version": {"version": "1"}}).about().keeps_connections
    assert not told({"/props": {"build_info": "b1"}}).about().keeps_connections


class Answering:
    """A server on the loopback that lets one function write to every client; it serves until the test is over."""

    def __init__(self, write: Callable[[socket.socket, bytes], None]) -> None:
        self._write = write
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.heard: list[bytes] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with suppress(OSError), client:
            self.heard.append(client.recv(65536))
            self._write(client, self.heard[-1])

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def answering() -> Iterator[Callable[[Callable[[socket.socket, bytes], None]], Answering]]:
    with ExitStack() as stack:

        def start(write: Callable[[socket.socket, bytes], None]) -> Answering:
            server = Answering(write)
            stack.callback(server.close)
            return server

        yield start


Answer = Callable[[Callable[[socket.socket, bytes], None]], Answering]
PATIENCE_S = 15.0
"""Far above every limit below, far below forever."""


def hang(client: socket.socket, _asked: bytes) -> None:
    client.recv(1)


def drip_headers(client: socket.socket, _asked: bytes) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        client.sendall(b"X-Drop: 1\r\n")
        time.sleep(0.02)


def drip_body(client: socket.socket, _asked: bytes) -> None:
    client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        client.sendall(b" ")
        time.sleep(0.02)


def refuse(status: int) -> Callable[[socket.socket, bytes], None]:
    def write(client: socket.socket, _asked: bytes) -> None:
        client.sendall(b"HTTP/1.1 %d X\r\nContent-Length: 6\r\n\r\nnot so" % status)

    return write


@pytest.mark.parametrize("write", [hang, drip_headers, drip_body])
def test_a_plain_question_is_over_within_the_limit_of_silence(answering: Answer, tmp_path: Path, write: Any) -> None:
    chosen = engine(answering(write).url + "/v1")
    began = time.monotonic()
    with pytest.raises(EngineStartError, match=r"no OpenAI-compatible server answers.*(within 0\.4 s|Timeout)"):
        chosen.start(chosen.launch_spec(FILES, "bf16"), tmp_path / "log.txt")
    assert time.monotonic() - began < PATIENCE_S


@pytest.mark.parametrize("write", [hang, drip_headers, drip_body])
def test_a_server_that_tells_nothing_of_itself_is_not_waited_for(answering: Answer, write: Any) -> None:
    began = time.monotonic()
    http = OpenAiHttp(answering(write).url + "/v1", {}, Limits(silence_s=0.2))
    assert http.about() == NOBODY
    with pytest.raises(ServerError):
        http.metrics()
    assert time.monotonic() - began < PATIENCE_S


def test_why_there_are_no_counters_names_no_address() -> None:
    """It goes into published records."""

    def refuse(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(501, text="nginx at 10.1.2.3 knows no /metrics")

    def hang_up(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("Connect call failed ('10.1.2.3', 8000)")

    for handle, says in ((refuse, "/metrics: HTTP 501"), (hang_up, "/metrics gave no answer")):
        http = OpenAiHttp("http://10.1.2.3:8000/v1", {}, transport=httpx2.MockTransport(handle))
        with pytest.raises(ServerError) as refused:
            http.metrics()
        assert str(refused.value) == says


def test_a_server_is_asked_once_who_it_is(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[OpenAiHttp] = []
    about = OpenAiHttp.about
    monkeypatch.setattr(OpenAiHttp, "about", lambda http: asked.append(http) or about(http))
    session = attach(serve(QUICK), tmp_path)
    session.describe()
    session.run(requests(2), 1)
    session.stop()
    assert len(asked) == 1


def test_a_proxy_is_neither_used_nor_shown_the_key(
    serve: Serve, answering: Answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = answering(refuse(502))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy.url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    session = attach(serve(QUICK), tmp_path, headers={"Authorization": "Bearer sk-1"})
    assert len(session.run(requests(2), 1).completions) == 2
    session.stop()
    assert proxy.heard == []


@pytest.mark.parametrize("given", ["", "/v1/chat/completions", "/v1/models"])
def test_an_address_without_its_ending_is_told_what_to_try(serve: Serve, tmp_path: Path, given: str) -> None:
    root = serve(QUICK).url.removesuffix("/v1")
    chosen = engine(root + given)
    with pytest.raises(EngineStartError, match=f"ends in /v1: try {root}/v1$"):
        chosen.start(chosen.launch_spec(FILES, "bf16"), tmp_path / "log.txt")


@pytest.mark.parametrize("status", [401, 403])
def test_a_server_that_wants_a_key_says_where_to_put_it(answering: Answer, tmp_path: Path, status: int) -> None:
    chosen = engine(answering(refuse(status)).url + "/v1")
    with pytest.raises(AccessDeniedError, match="set MOE_CAP_API_KEY") as refused:
        chosen.start(chosen.launch_spec(FILES, "bf16"), tmp_path / "log.txt")
    assert "no OpenAI-compatible server" not in str(refused.value)
    assert str(status) in str(refused.value)
