import socket
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from load_plans import QUICK, plan_for

from moe_cap.errors import InvalidInputError, RunTimeoutError, ServerError
from moe_cap.measure.load import ClosedLoop, Limits, Target, constant, run_load
from moe_cap.measure.mock_script import Behaviour, Fault
from moe_cap.measure.mock_server import MockServer

Serve = Callable[[Behaviour], MockServer]
PATIENCE_S = 15.0
"""Far above every limit of the plans below, far below forever."""


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (Fault.HANG, "silent"),
        (Fault.STALL, "silent"),
        (Fault.DIE, "died"),
        (Fault.ENDLESS, "too_much.*no end"),
        (Fault.ERROR_EVENT, "error_event.*out of memory"),
        (Fault.GARBAGE_STREAM, "garbage"),
        (Fault.GARBAGE_HTTP, "garbage"),
        (Fault.STATUS_429, "429.*too many"),
        (Fault.STATUS_500, "500.*internal"),
    ],
)
@pytest.mark.parametrize("arrivals", [ClosedLoop(3), constant(100, 12)], ids=["closed", "open"])
def test_a_bad_server_is_a_typed_failure_within_its_timeout(
    serve: Serve, fault: Fault, says: str, arrivals: ClosedLoop
) -> None:
    server = serve(Behaviour(ttft_s=0.01, itl_s=0.001, fault=fault))
    began = time.monotonic()
    with pytest.raises(ServerError, match=says):
        run_load(plan_for(server, arrivals, 12))
    assert time.monotonic() - began < PATIENCE_S


def test_headers_that_come_too_late_are_a_silence(serve: Serve) -> None:
    server = serve(Behaviour(ttft_s=30.0))
    with pytest.raises(ServerError, match=r"nothing came for 0\.2 s"):
        run_load(plan_for(server, ClosedLoop(1), 3, limits=Limits(silence_s=0.2)))


def test_an_answer_without_end_is_ended(serve: Serve) -> None:
    server = serve(Behaviour(ttft_s=0.01, itl_s=0.3))
    with pytest.raises(ServerError, match="too_long"):
        run_load(plan_for(server, ClosedLoop(1), 2, limits=Limits(silence_s=2.0, request_s=0.4)))


def test_a_run_without_end_is_ended(serve: Serve) -> None:
    with pytest.raises(RunTimeoutError, match=r"did not end within 0\.3 s"):
        run_load(plan_for(serve(QUICK), constant(5, 20), 20, run_limit_s=0.3))


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    server = MockServer(QUICK)
    server.close()
    plan = plan_for(server, ClosedLoop(2), 400, target=Target(f"http://127.0.0.1:{port}/v1", "mock"))
    with pytest.raises(ServerError, match="ECONNREFUSED"):
        run_load(plan)


def test_an_unknown_host_is_told_before_anything_is_sent(serve: Serve) -> None:
    with pytest.raises(ServerError, match=r"no-such-host\.invalid"):
        run_load(plan_for(serve(QUICK), ClosedLoop(1), 2, target=Target("http://no-such-host.invalid/v1", "mock")))


def resolving_to(monkeypatch: pytest.MonkeyPatch, *ports: int) -> None:
    """Let every name have several addresses of the loopback interface."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_named: found)


def test_the_first_address_of_a_name_that_answers_is_taken(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    server = serve(QUICK)
    port = urlsplit(server.url).port or 0
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = listener.getsockname()[1]
    resolving_to(monkeypatch, nobody, port)
    run = run_load(plan_for(server, ClosedLoop(1), 2, target=Target("http://server/v1", "mock")))
    assert not run.failed
    resolving_to(monkeypatch, nobody, nobody)
    with pytest.raises(ServerError, match="ECONNREFUSED"):
        run_load(plan_for(server, ClosedLoop(1), 2, target=Target("http://server/v1", "mock")))


def test_a_wrong_path_quotes_the_servers_answer(serve: Serve) -> None:
    server = serve(QUICK)
    with pytest.raises(ServerError, match=r"404.*nothing at /v7/completions"):
        run_load(plan_for(server, ClosedLoop(1), 2, target=Target(server.url.replace("v1", "v7"), "mock")))
    with pytest.raises(ServerError, match=r"404.*other-model does not exist"):
        run_load(plan_for(server, ClosedLoop(1), 2, target=Target(server.url, "other-model")))


def test_something_that_is_no_address() -> None:
    server = MockServer(QUICK)
    server.close()
    with pytest.raises(InvalidInputError, match="address"):
        run_load(plan_for(server, ClosedLoop(1), 2, target=Target("localhost", "mock")))


def test_a_refused_request_in_the_warm_up_says_so(serve: Serve) -> None:
    server = serve(Behaviour(fault=Fault.STATUS_500))
    plan = plan_for(server, ClosedLoop(1), 2)
    with pytest.raises(ServerError, match="in the warm-up"):
        run_load(plan_for(server, ClosedLoop(1), 2, warm_up=plan.prompts))


def test_several_workers_give_up_together(serve: Serve) -> None:
    with pytest.raises(ServerError, match="500"):
        run_load(plan_for(serve(Behaviour(fault=Fault.STATUS_500)), ClosedLoop(4), 16, workers=2))


def test_a_server_that_closes_without_a_length_has_ended_its_answer(serve: Serve) -> None:
    """HTTP/1.0 style: the end of the connection is the end of the body."""
    usage = b'"usage":{"prompt_tokens":4,"completion_tokens":2}'
    body = b'data: {"choices":[{"text":" a b","finish_reason":"stop"}],' + usage + b"}\n\n"

    def answer(listener: socket.socket) -> None:
        for _ in range(2):
            client, _ = listener.accept()
            client.recv(65536)
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + body + b"data: [DONE]\n\n")
            client.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        run = run_load(plan_for(serve(QUICK), ClosedLoop(1), 2, target=Target(url, "mock", ignore_eos=False)))
        thread.join()
    assert [request.text for request in run.requests] == [" a b", " a b"]
    assert not run.failed
