"""A server that runs already, good or bad, through the command."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from moe_cap.errors import InvalidInputError
from moe_cap.measure.engines.fingerprints import NOBODY, About
from moe_cap.measure.engines.openai_http import OpenAiHttp
from moe_cap.measure.load import Rules
from moe_cap.measure.load.client import Client
from moe_cap.measure.load.exchange import Exchange
from moe_cap.measure.mock_script import Behaviour, Fault
from moe_cap.measure.mock_server import MockServer
from moe_cap.measure.profile import system
from moe_cap.measure.prompt_cache import NO_OPENING
from moe_cap.metrics.parallelism import Parallelism
from moe_cap.quantity import QUANTITIES
from moe_cap.routing import RoutingSource
from tests.measure.profile.conftest import Profile, write_description

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # lm-eval's and datasets' own

Serve = Callable[[Behaviour], MockServer]
QUICK = Behaviour(ttft_s=0.01, itl_s=0.002)
SHAPE = ("--input-tokens", "8", "--output-tokens", "6", "--num-requests", "8")
PATIENCE_S = 60.0
"""Far above every limit below, imports included, and far below forever."""


def test_a_server_becomes_a_complete_result(serve: Serve, words: str, profile: Profile) -> None:
    server = serve(QUICK)
    out = profile("--api-url", server.url, "--model", words, "--concurrency", "1,4", *SHAPE)
    (result,) = profile.results()
    assert [point.load.concurrency for point in result.points] == [1, 4]
    assert result.engine.name == "endpoint"
    assert result.submission is not None
    assert result.submission.engine == "endpoint"
    assert result.model.weights_bytes is None
    assert result.model.revision is None
    assert "only the server" in str(result.model.revision_reason)
    for point in result.points:
        assert set(point.quantities) >= set(QUANTITIES) - {name for name in QUANTITIES if "usd" in name}
        assert point.quantities["decode_s_mbu"].value is None
        assert point.quantities["decode_s_mbu"].reason
        assert point.routing_source is RoutingSource.UNIFORM
        assert len(point.requests) == 8
        served = {len(request.token_s) for request in point.requests}
        assert served == {6}
    fastest = min(request.token_s[0] - request.sent_s for request in result.points[0].requests)
    assert fastest >= QUICK.ttft_s
    assert "TPOT p50 [ms]" in out
    assert "4 in flight" in out
    assert "[1/1]" in profile.err
    assert "% done" in profile.err


def test_a_plain_server_becomes_a_result_without_its_token_ids(serve: Serve, words: str, profile: Profile) -> None:
    server = serve(Behaviour(ttft_s=0.01, itl_s=0.05, refuse_extras=True, tokens_per_chunk=4))
    profile("--api-url", server.url, "--model", words, *SHAPE)
    (result,) = profile.results()
    (point,) = result.points
    assert {(request.output_tokens, len(request.token_s)) for request in point.requests} == {(6, 2)}
    for request in point.requests:
        assert point.quantities["tpot_s_p50"].value is not None
        assert request.token_s[0] <= request.token_s[1] <= request.ended_s
    first = point.requests[0]
    slowest = max((request.ended_s - request.token_s[0]) / 5 for request in point.requests)
    assert 0 < point.quantities["tpot_s_p50"].value <= slowest, first
    assert not any("blank" in warning for warning in result.warnings)


def test_the_address_and_the_key_are_in_no_file(
    serve: Serve, words: str, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MOE_CAP_API_KEY", "sk-not-to-be-seen")
    server = serve(QUICK)
    profile("--api-url", server.url, "--model", words, *SHAPE, "--publish")
    written = [path for path in [*profile.output.rglob("*"), *profile.store.rglob("*")] if path.is_file()]
    assert any(path.name == "result.json" for path in written)
    for path in written:
        assert b"sk-not-to-be-seen" not in path.read_bytes(), path
        assert f":{server.port}".encode() not in path.read_bytes(), path


def test_the_key_is_shown_to_the_server(words: str, profile: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOE_CAP_API_KEY", "sk-1")
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        import threading

        def hear() -> None:
            while True:
                client, _ = listener.accept()
                heard.append(client.recv(65536))
                client.sendall(b"HTTP/1.1 401 X\r\nContent-Length: 6\r\n\r\nnot so")
                client.close()

        threading.Thread(target=hear, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        assert "401" in profile.fails("--api-url", url, "--model", words, *SHAPE, code=1)
    assert heard
    assert all(b"Bearer sk-1" in asked for asked in heard)


def test_an_open_loop_keeps_its_schedule_in_the_record(serve: Serve, words: str, profile: Profile) -> None:
    profile(
        "--api-url", serve(QUICK).url, "--model", words, *SHAPE, "--arrivals", "poisson", "--rate", "40,80"
    )  # fmt: skip
    (result,) = profile.results()
    assert result.submission is not None
    assert result.submission.arrivals is not None
    for point, rate in zip(result.points, (40, 80), strict=True):
        assert point.load.kind == "open_loop"
        assert point.load.concurrency is None
        intended = [request.intended_s for request in point.requests]
        assert None not in intended
        span_s = max(intended) - min(intended)  # type: ignore[type-var]
        assert point.load.request_rate_per_s == pytest.approx((len(intended) - 1) / span_s, rel=1e-6)
        assert 0.2 * rate < point.load.request_rate_per_s < 5 * rate
        assert point.quantities["schedule_lag_s_p99"].value is not None
    assert "timing poisson arrivals, 40/s asked, " in profile.err
    slow, quick = (max(request.sent_s for request in point.requests) for point in result.points)
    assert slow > quick


def test_what_the_client_saw_and_how_it_fared_itself_is_kept(serve: Serve, words: str, profile: Profile) -> None:
    profile("--api-url", serve(QUICK).url, "--model", words, *SHAPE, "--repeats", "2")
    (point,) = profile.results()[0].points
    assert point.quantities["schedule_lag_s_p99"].value is None, "a closed loop has no schedule"
    assert point.quantities["client_lag_s_p99"].value > 0
    assert 0 < point.quantities["client_busy_share"].value <= 1
    (path,) = profile.output.glob("*/requests-1-in-flight.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["repeat"] for line in lines] == [0] * 8 + [1] * 8
    for line in lines:
        assert (line["status"], line["finish_reason"], line["failure"]) == (200, "length", None)
        assert line["usage"]["completion_tokens"] == sum(line["chunk_tokens"]) == 6
        assert line["sent_s"] <= line["headers_s"] <= line["chunk_s"][0]
    assert sum(line["connected_s"] is not None for line in lines) >= 1


def test_gaps_are_those_that_a_reader_of_the_stream_saw(serve: Serve, words: str, profile: Profile) -> None:
    server = serve(Behaviour(ttft_s=0.01, itl_s=0.02, tokens_per_chunk=3))
    profile("--api-url", server.url, "--model", words, *SHAPE)
    (point,) = profile.results()[0].points
    assert {len(request.token_s) for request in point.requests} == {6}
    gaps_s = [request.token_s[-1] - request.token_s[0] for request in point.requests]
    gap = point.quantities["itl_s_p50"]
    assert min(gaps_s) <= gap.value <= max(gaps_s)
    assert "pieces of 3 tokens" in str(gap.note)


def test_an_open_loop_that_was_never_steady_is_invalid_and_says_what_to_do(
    serve: Serve, words: str, profile: Profile
) -> None:
    server = serve(Behaviour(ttft_s=0.2, itl_s=0.1))
    arguments = ("--input-tokens", "8", "--output-tokens", "2", "--num-requests", "16")
    profile(
        "--api-url", server.url, "--model", words, *arguments, "--arrivals", "constant", "--rate", "40"
    )  # fmt: skip
    (point,) = profile.results()[0].points
    assert point.quantities["output_tokens_per_s"].value > 0
    assert "never steady" in point.invalid[0]


def test_a_trace_is_replayed(serve: Serve, words: str, profile: Profile, tmp_path: Path) -> None:
    trace = tmp_path / "times.txt"
    trace.write_text("10.0\n10.05\n10.2\n")
    profile("--api-url", serve(QUICK).url, "--model", words, *SHAPE, "--arrivals", "trace", "--trace", str(trace))
    (point,) = profile.results()[0].points
    first = point.requests[0].intended_s
    assert first is not None
    assert [request.intended_s - first for request in point.requests] == pytest.approx([0, 0.05, 0.2])


def test_without_lengths_a_dataset_has_its_own(serve: Serve, words: str, profile: Profile) -> None:
    arguments = ("--api-url", serve(QUICK).url, "--model", words, "--dataset", "cap_choice", "--num-requests", "12")
    out = profile(*arguments, "--concurrency", "3", "--slo", "ttft_s=1e-09", "--slo", "tpot=30")
    (result,) = profile.results()
    (point,) = result.points
    assert (point.load.dataset, point.load.input_tokens) == ("cap_choice", None)
    assert "each as long as it is" in str(point.load.prompts)
    assert {request.output_tokens for request in point.requests} == {2}
    assert point.quantities["goodput_requests_per_s"].value == 0
    assert point.quantities["requests_per_s"].value > 0
    assert "goodput [1/s]" in out
    assert "--slo ttft_s=1e-09 --slo tpot_s=30" in result.reproduce
    assert "--input-tokens" not in result.reproduce


def test_an_objective_that_is_none_is_refused(words: str, profile: Profile) -> None:
    arguments = ("--api-url", "http://127.0.0.1:9/v1", "--model", words, *SHAPE)
    assert "ttft=SECONDS" in profile.fails(*arguments, "--slo", "fast", code=2)
    assert "objectives" in profile.fails(*arguments, "--slo", "ttft=-1", code=2)
    assert "objectives" in profile.fails(*arguments, "--slo", "speed=1", code=2)


def test_an_engine_in_this_process_has_no_open_loop(profile: Profile, tiny_folder: Path) -> None:
    arguments = ("--engine", "fake", "--model", str(tiny_folder), *SHAPE, "--arrivals", "constant", "--rate", "5")
    assert "no clock to send by" in profile.fails(*arguments, code=2)


def test_a_task_is_scored_through_the_server(serve: Serve, words: str, profile: Profile) -> None:
    arguments = ("--api-url", serve(QUICK).url, "--model", words, *SHAPE, "--task", "cap_copy", "--accuracy-limit", "4")
    out = profile(*arguments)
    (record,) = profile.results()[0].accuracy
    assert (record.task, record.num_samples, record.value) == ("cap_copy", 4, 0.0)
    assert "accuracy [%]" in out


def test_a_task_that_needs_what_a_server_cannot_give_fails_by_name(serve: Serve, words: str, profile: Profile) -> None:
    """cap_choice compares likelihoods, and the mock echoes none."""
    arguments = (
        "--api-url",
        serve(QUICK).url,
        "--model",
        words,
        *SHAPE,
        "--task",
        "cap_choice",
        "--accuracy-limit",
        "2",
    )
    assert "HTTP 400" in profile.fails(*arguments, code=1)


@pytest.mark.parametrize(
    ("behaviour", "error", "says"),
    [
        (Behaviour(fault=Fault.HANG), "ServerError", "silent"),
        (Behaviour(fault=Fault.STALL, fault_after=1), "ServerError", "silent"),
        (Behaviour(fault=Fault.DIE, fault_after=1), "ServerError", "died"),
        (Behaviour(fault=Fault.GARBAGE_STREAM), "ServerError", "garbage"),
        (Behaviour(fault=Fault.GARBAGE_HTTP), "ServerError", "garbage"),
        (Behaviour(fault=Fault.STATUS_429), "ServerError", "429"),
        (Behaviour(fault=Fault.STATUS_500), "ServerError", "500"),
        (Behaviour(fault=Fault.ERROR_EVENT, fault_after=1), "ServerError", "out of memory"),
        (Behaviour(fault=Fault.NO_USAGE), "InvalidRunError", "told no usage"),
        (Behaviour(fault=Fault.FEWER_TOKENS, fault_after=1), "InvalidRunError", "1 tokens answered where 2"),
        (Behaviour(added_prompt_tokens=3), "InvalidRunError", "another tokenizer"),
        (Behaviour(fault=Fault.FEWER_TOKENS, fault_after=3, fault_every=3), "InvalidRunError", "answered where 6"),
        (Behaviour(fault=Fault.DIE, fault_after=3, fault_every=3), "ServerError", "died"),
    ],
)  # fmt: skip
def test_a_bad_server_is_a_typed_failure_and_nothing_is_kept_or_published(
    serve: Serve, words: str, profile: Profile, behaviour: Behaviour, error: str, says: str
) -> None:
    server = serve(behaviour)
    began = time.monotonic()
    message = profile.fails(
        "--api-url", server.url, "--model", words, *SHAPE, "--publish", "--silence-s", "0.5", code=1
    )
    assert time.monotonic() - began < PATIENCE_S
    assert says in message
    (failure,) = profile.output.rglob("failure.json")
    assert json.loads(failure.read_text())["error"] == error


def test_an_answer_that_takes_longer_than_the_limit_is_ended(serve: Serve, words: str, profile: Profile) -> None:
    server = serve(Behaviour(ttft_s=0.01, itl_s=1.0))
    message = profile.fails("--api-url", server.url, "--model", words, *SHAPE, "--request-s", "0.5", code=1)
    assert "too_long" in message


def test_nobody_is_there(words: str, profile: Profile) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    message = profile.fails("--api-url", f"http://127.0.0.1:{port}/v1", "--model", words, *SHAPE, code=1)
    assert "no OpenAI-compatible server answers" in message


def test_a_wrong_path_and_a_wrong_name_are_told_apart(serve: Serve, words: str, profile: Profile) -> None:
    url = serve(QUICK).url
    assert "404" in profile.fails("--api-url", url.replace("/v1", "/v7"), "--model", words, *SHAPE, code=1)
    message = profile.fails("--api-url", url, "--served-model", "other", "--model", words, *SHAPE, code=1)
    assert "it serves: mock" in message


def test_a_mock_that_counts_by_a_models_tokenizer_stands_for_its_server(
    serve: Serve, profile: Profile, tiny_folder: Path, tmp_path: Path
) -> None:
    server = serve(Behaviour(ttft_s=0.01, itl_s=0.002, tokenizer=str(tiny_folder)))
    profile("--api-url", server.url, "--model", str(tiny_folder), *SHAPE)
    assert {request.output_tokens for request in profile.results()[0].points[0].requests} == {6}
    with pytest.raises(InvalidInputError, match=r"no tokenizer\.json"):
        MockServer(Behaviour(tokenizer=str(tmp_path)))


def caching(serve: Serve, folder: Path) -> MockServer:
    return serve(Behaviour(ttft_s=0.01, itl_s=0.002, tokenizer=str(folder), prefix_cache=True))


LONG = ("--input-tokens", "40,80", "--output-tokens", "4,6", "--num-requests", "4", "--repeats", "2")


def test_a_servers_prefix_cache_finds_nothing_of_a_profile(
    serve: Serve, profile: Profile, tiny_folder: Path, tmp_path: Path
) -> None:
    server = caching(serve, tiny_folder)
    for output in ("out", "again"):
        profile.output = tmp_path / output
        profile("--api-url", server.url, "--model", str(tiny_folder), *LONG, "--concurrency", "1,2")
        results = profile.results()
        assert len(results) == 4
        for point in (point for result in results for point in result.points):
            assert [request.cached_tokens for request in point.requests] == [0] * 8
            assert point.invalid == ()


def test_prompts_that_a_server_had_computed_before_make_a_point_invalid(
    serve: Serve, profile: Profile, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "Numbered", lambda _run: NO_OPENING)
    profile("--api-url", caching(serve, tiny_folder).url, "--model", str(tiny_folder), *LONG)
    points = [point for result in profile.results() for point in result.points]
    assert all("came from the server's prefix cache" in " ".join(point.invalid) for point in points)
    cached = [request.cached_tokens for request in points[0].requests if request.repeat == 1]
    assert cached == [32] * 4


def test_a_wrong_tokenizer_is_found_before_anything_is_timed(serve: Serve, profile: Profile, tiny_folder: Path) -> None:
    server = serve(QUICK)
    message = profile.fails("--api-url", server.url, "--model", str(tiny_folder), *SHAPE, code=1)
    assert "another tokenizer" in message
    assert len(server.log) == 1


def test_a_dense_model_is_refused_before_the_server_is_asked(serve: Serve, profile: Profile, tmp_path: Path) -> None:
    server = serve(QUICK)
    dense = write_description(tmp_path / "dense", "qwen3")
    message = profile.fails("--api-url", server.url, "--model", str(dense), *SHAPE, code=2)
    assert "is dense: no layer has routed experts" in message
    assert not server.log


def test_a_client_that_limits_the_run_makes_it_invalid(
    serve: Serve, words: str, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every send is 20 ms late at least: too late for a limit of 10 ms, and not for one of 30 s."""
    send = Client.send

    def late(client: Client, exchange: Exchange) -> None:
        time.sleep(0.02)
        send(client, exchange)

    monkeypatch.setattr(Client, "send", late)
    monkeypatch.setattr(system, "RULES", Rules(max_lag_s=0.01, max_beat_lag_s=30))
    arguments = ("--api-url", serve(QUICK).url, "--model", words, *SHAPE)
    message = profile.fails(*arguments, code=1)
    assert "limited by its own client" in message
    assert "the limit is 10 ms" in message
    monkeypatch.setattr(system, "RULES", Rules(max_lag_s=30, max_beat_lag_s=30))
    profile(*arguments)
    assert profile.results()[0].points[0].quantities["client_lag_s_p99"].value >= 0.02


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--api-url", "localhost:8000"), "is not an address"),
        (("--api-url", "http://user:secret@host/v1"), "put it into MOE_CAP_API_KEY"),
        (("--api-url", "http://example.com/v1"), "say which with --hardware"),
        (("--api-url", "http://127.0.0.1:9/v1", "--remote"), "say which with --hardware"),
        (("--api-url", "http://127.0.0.1:9/v1", "--", "--tp", "2"), "runs already"),
        (("--api-url", "http://127.0.0.1:9/v1", "--engine", "vllm"), "--api-url for a server that runs, or --engine"),
        ((), "--api-url for a server that runs, or --engine"),
        (("--engine", "abacus"), "no engine 'abacus'"),
        (("--engine", "endpoint"), "no engine 'endpoint'"),
        (("--engine", "fake", "--", "--api-key", "sk-1"), "an API key is no argument"),
        (("--engine", "fake", "--", "--hf-token", "sk-1"), "an API key is no argument"),
        (("--engine", "fake", "--sweep", "a=--hf-token=sk-1", "--", "{a}"), "an API key is no argument"),
        (("--engine", "fake", "--", "--api-k", "sk-1"), "an API key is no argument"),
        (("--engine", "fake", "--sweep", "a=it's", "--", "{a}"), "a=it's: No closing quotation"),
        (("--engine", "fake", "--", "--port", "1"), "set by the profile itself"),
        (("--engine", "fake", "--sweep", "tp=1"), "sweeping it changes nothing"),
        (("--engine", "fake", "--sweep", "tp"), "give NAME=VALUE"),
        (("--engine", "fake", "--", "--tp", "2"), "takes no engine arguments"),
        (("--engine", "fake", "--concurrency", "x"), "concurrency"),
        (("--engine", "fake", "--rate", "2"), "a rate needs arrivals"),
    ],
)
def test_what_cannot_be_asked_is_refused(words: str, profile: Profile, arguments: tuple[str, ...], says: str) -> None:
    folder = write_weights_file(Path(words))
    options, _, rest = " ".join(arguments).partition(" -- ")
    asked = [*options.split(), "--model", str(folder), *SHAPE, *(["--", *rest.split()] if rest else [])]
    assert says in profile.fails(*asked, code=2)


@pytest.mark.parametrize(
    ("model", "says"), [("moe", "give a Hub id like"), ("./nowhere", "there is no folder ./nowhere")]
)
def test_a_model_that_is_not_there(profile: Profile, model: str, says: str) -> None:
    assert says in profile.fails("--engine", "fake", "--model", model, *SHAPE, code=2)
    assert "which model?" in profile.fails("--engine", "fake", code=2)


def write_weights_file(folder: Path) -> Path:
    """An empty safetensors file: enough for an engine that loads nothing."""
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return folder


def tells(monkeypatch: pytest.MonkeyPatch, about: About) -> None:
    monkeypatch.setattr(OpenAiHttp, "about", lambda _http: about)


SGLANG = About("sglang", "0.5.23", {"tp_size": 8}, parallel=Parallelism(tp=8))


@pytest.mark.parametrize(
    ("about", "given", "says"),
    [
        (NOBODY, (), "say it with --num-devices"),
        (About("vllm", "0.32.0"), (), "say it with --num-devices"),
        (SGLANG, ("--num-devices", "2"), "runs on 8 devices"),
    ],
)
def test_a_number_of_devices_is_told_by_somebody_and_by_all_alike(
    serve: Serve, words: str, profile: Profile, monkeypatch: pytest.MonkeyPatch,
    about: About, given: tuple[str, ...], says: str,
) -> None:  # fmt: skip
    tells(monkeypatch, about)
    asked = ("--remote", "--hardware", "h100-sxm-80gb", *given)
    assert says in profile.fails("--api-url", serve(QUICK).url, "--model", words, *SHAPE, *asked, code=2)


def test_a_server_that_tells_its_layout_is_counted_with_all_its_devices(
    serve: Serve, words: str, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    tells(monkeypatch, SGLANG)
    asked = ("--remote", "--hardware", "h100-sxm-80gb")
    profile("--api-url", serve(QUICK).url, "--model", words, *SHAPE, *asked)
    (result,) = profile.results()
    assert (result.engine.tensor_parallel, result.hardware.num_devices) == (8, 8)


def test_a_machine_with_several_gpus_wants_to_know_how_many(
    serve: Serve, words: str, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = system.detect_machine()
    gpu = replace(here.processor, device_id="l4-24gb", name="NVIDIA L4")
    monkeypatch.setattr(system, "detect_machine", lambda: replace(here, devices=(gpu, gpu)))
    asked = ("--api-url", serve(QUICK).url, "--model", words, *SHAPE)
    assert "say it with --num-devices" in profile.fails(*asked, code=2)


def test_keys_addresses_and_folders_that_a_server_tells_are_in_no_file(
    serve: Serve, words: str, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {
        "api_key": "sk-1-covert", "admin_api_key": "sk-2-covert", "hf_token": "sk-3-covert", "host": "10.9.8.7",
        "model_path": "/home/covert/models/moe", "max_total_tokens": 4096, "tp_size": 1,
        "launch_command": "--model-path /home/covert/models/moe --api-key sk-1-covert --host 10.9.8.7",
    }  # fmt: skip
    tells(monkeypatch, replace(SGLANG, arguments=told, parallel=Parallelism()))
    profile("--api-url", serve(QUICK).url, "--model", words, *SHAPE, "--publish")
    (result,) = profile.results()
    assert result.engine.arguments["model_path"] == "moe"
    assert result.engine.arguments["max_total_tokens"] == 4096
    for path in [*profile.output.rglob("*"), *profile.store.rglob("*")]:
        if path.is_file():
            assert not re.search(rb"covert|10\.9\.8\.7", path.read_bytes()), path


def test_the_address_of_a_server_is_in_no_file(
    serve: Serve, words: str, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    tells(monkeypatch, About("llama-cpp", "b11434"))
    server = serve(QUICK)
    profile("--api-url", server.url, "--model", words, *SHAPE, "--publish")
    (result,) = profile.results()
    assert "/metrics: HTTP" in str(result.points[0].quantities["decode_s_mbu"].reason)
    address = urlsplit(server.url).netloc.encode()
    for path in [*profile.output.rglob("*"), *profile.store.rglob("*")]:
        if path.is_file():
            assert address not in path.read_bytes(), path


def test_another_server_at_the_same_address_is_measured_anew(
    serve: Serve, words: str, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("--api-url", serve(QUICK).url, "--model", words, *SHAPE)
    four = replace(SGLANG, arguments={"tp_size": 4}, parallel=Parallelism(tp=4))
    runs = ((SGLANG, False), (SGLANG, True), (NOBODY, True), (four, False), (About("vllm", "1"), False))
    for about, kept in runs:
        tells(monkeypatch, about)
        profile(*asked)
        assert ("measured before, kept" in profile.err) is kept
    assert sorted(str(result.engine.version) for result in profile.results()) == ["0.5.23", "0.5.23", "1"]


def test_what_was_kept_is_published_after_the_server_is_gone(
    words: str, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    with MockServer(QUICK) as server, monkeypatch.context() as while_it_runs:
        tells(while_it_runs, SGLANG)
        asked = ("--api-url", server.url, "--model", words, *SHAPE)
        profile(*asked)
    profile(*asked, "--publish")
    assert "measured before, kept" in profile.err
    (result,) = profile.results()
    assert list(profile.store.rglob(f"{result.id}.json"))


def test_nobody_at_an_address_elsewhere_is_not_asked_for_its_devices(words: str, profile: Profile) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    elsewhere = ("--remote", "--hardware", "h100-sxm-80gb")
    message = profile.fails("--api-url", f"http://127.0.0.1:{port}/v1", "--model", words, *SHAPE, *elsewhere, code=1)
    assert "no OpenAI-compatible server answers" in message


def test_one_slow_answer_makes_no_other_server(
    serve: Serve, words: str, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([NOBODY, SGLANG])
    monkeypatch.setattr(OpenAiHttp, "about", lambda _http: next(answers))
    elsewhere = ("--remote", "--hardware", "h100-sxm-80gb")
    profile("--api-url", serve(QUICK).url, "--model", words, *SHAPE, *elsewhere)
    assert profile.results()[0].hardware.num_devices == 8


def test_a_server_that_is_another_in_mid_sweep_has_its_own_devices(
    serve: Serve, words: str, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    spread = iter([8, 4])
    monkeypatch.setattr(OpenAiHttp, "about", lambda _http: replace(SGLANG, parallel=Parallelism(tp=next(spread))))
    asked = ("--input-tokens", "8,10", "--output-tokens", "6", "--num-requests", "8")
    elsewhere = ("--remote", "--hardware", "h100-sxm-80gb")
    profile("--api-url", serve(QUICK).url, "--model", words, *asked, *elsewhere)
    found = [(result.hardware.num_devices, result.engine.tensor_parallel) for result in profile.results()]
    assert sorted(found) == [(4, 4), (8, 8)]


def test_a_machine_that_was_only_named_has_the_catalogues_peaks_and_no_probe(
    serve: Serve, words: str, profile: Profile
) -> None:
    arguments = ("--remote", "--hardware", "h100-sxm-80gb", "--num-devices", "2")
    profile("--api-url", serve(QUICK).url, "--model", words, *SHAPE, *arguments)
    (result,) = profile.results()
    hardware = result.hardware
    assert (hardware.device, hardware.num_devices, hardware.host_cpu, hardware.probe) == ("h100-sxm-80gb", 2, None, {})
    assert hardware.datasheet_peak_bytes_per_s == 3.35e12
    assert hardware.measured_peak_bytes_per_s is None
    energy = result.points[0].quantities["energy_j"]
    assert energy.value is None
    assert "another machine" in str(energy.reason)
    assert result.points[0].quantities["purchase_usd"].value is not None
