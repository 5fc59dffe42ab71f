from collections.abc import Callable
from itertools import pairwise

import pytest
from load_plans import QUICK, plan_for, prompts

from moe_cap.errors import InvalidInputError, InvalidRunError
from moe_cap.measure.load import (
    Api,
    ClosedLoop,
    Limits,
    OpenLoop,
    Prompt,
    Rules,
    Target,
    TokenCounting,
    constant,
    run_load,
)
from moe_cap.measure.load.client import Client
from moe_cap.measure.load.exchange import Exchange
from moe_cap.measure.mock_log import ServedRequest
from moe_cap.measure.mock_script import Behaviour, Fault
from moe_cap.measure.mock_server import MockServer
from moe_cap.metrics.latency import WindowKind, measurement_window

Serve = Callable[[Behaviour], MockServer]


def most_at_once(log: list[ServedRequest]) -> int:
    """Most requests that the server had open at once, on its own clock."""
    moments = sorted([(r.received_ns, 1) for r in log] + [(r.ended_ns or 0, -1) for r in log])
    under_way = most = 0
    for _, change in moments:
        under_way += change
        most = max(most, under_way)
    return most


@pytest.mark.parametrize("concurrency", [1, 3, 16])
def test_a_closed_loop_keeps_exactly_its_concurrency(serve: Serve, concurrency: int) -> None:
    server = serve(QUICK)
    run = run_load(plan_for(server, ClosedLoop(concurrency), 4 * concurrency)).require_valid()
    assert most_at_once(server.log) == concurrency
    assert len(server.log) == len(run.requests) == 4 * concurrency
    assert not run.failed


def test_every_send_of_a_closed_loop_restores_the_concurrency(serve: Serve) -> None:
    run = run_load(plan_for(serve(QUICK), ClosedLoop(4), 24))
    sent = sorted(request.sent_s for request in run.requests)
    window = measurement_window(run.timings, 4)
    assert (window.start_s, window.end_s) == (sent[3], sent[-1])


def test_the_first_requests_of_a_closed_loop_are_due_one_after_another(serve: Serve) -> None:
    """None ended before them: what it takes to open so many connections is no lateness of the client."""
    first = run_load(plan_for(serve(QUICK), ClosedLoop(32), 64)).requests[:32]
    assert first[0].intended_s == 0.0
    assert all(before.sent_s <= after.intended_s <= after.sent_s for before, after in pairwise(first))


def test_the_loop_of_the_client_is_judged_once_every_place_is_taken(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    def send(client: Client, exchange: Exchange) -> None:
        told.append("send")
        plain_send(client, exchange)

    def start(client: Client) -> None:
        told.append("start")
        plain_start(client)

    plain_send, plain_start = Client.send, Client.start
    monkeypatch.setattr(Client, "send", send)
    monkeypatch.setattr(Client, "start", start)
    run_load(plan_for(serve(QUICK), ClosedLoop(4), 8))
    assert told == [*["send"] * 4, "start", *["send"] * 4]


def test_an_open_loop_does_not_wait_for_answers(serve: Serve) -> None:
    server = serve(Behaviour(ttft_s=0.3, itl_s=0.001))
    run = run_load(plan_for(server, constant(100, 20), 20))
    assert max(request.sent_s for request in run.requests) < min(request.chunk_s[0] for request in run.requests)
    assert [request.intended_s for request in run.requests] == pytest.approx(constant(100, 20).arrivals_s, abs=1e-6)
    assert all(request.lag_s >= 0 for request in run.requests)


def test_what_the_client_saw_is_what_the_server_did(serve: Serve) -> None:
    server = serve(Behaviour(ttft_s=0.02, itl_s=0.004, spread=0.5))
    run = run_load(plan_for(server, ClosedLoop(2), 8))
    served = {request.id: request for request in server.log}
    for request in run.requests:
        truth = served[request.id]
        assert len(request.token_s) == len(truth.token_ns) == 4
        for arrived_s, written_ns in zip(request.token_s, truth.token_ns, strict=True):
            assert run.started_s + arrived_s >= written_ns / 1e9
        assert run.started_s + request.sent_s <= truth.received_ns / 1e9
        assert request.sent_s < request.token_s[0] <= request.token_s[-1] == request.ended_s


@pytest.mark.parametrize("api", list(Api))
@pytest.mark.parametrize("running_usage", [True, False])
def test_both_interfaces_give_text_usage_and_counts(serve: Serve, api: Api, running_usage: bool) -> None:
    server = serve(QUICK)
    target = Target(server.url, "mock", api, running_usage=running_usage)
    run = run_load(plan_for(server, ClosedLoop(2), 6, target=target)).require_valid()
    for request in run.requests:
        assert request.usage is not None
        assert (request.usage.prompt_tokens, request.output_tokens, request.finish_reason) == (4, 4, "length")
        assert request.text.startswith(" w")
        assert request.counting is (TokenCounting.RUNNING_USAGE if running_usage else TokenCounting.ONE_PER_CHUNK)


def test_chunks_of_several_tokens_stay_chunks(serve: Serve) -> None:
    server = serve(Behaviour(ttft_s=0.01, itl_s=0.001, tokens_per_chunk=3))
    run = run_load(plan_for(server, ClosedLoop(2), 6, prompts=prompts(6, output_tokens=7))).require_valid()
    for request in run.requests:
        assert request.chunk_tokens == (3, 3, 1)
        first, second, third = request.chunk_s
        assert request.token_s == (first, first, first, second, second, second, third)
    assert run.token_times_known


def test_chunks_of_unknown_size_are_said_to_be_so(serve: Serve) -> None:
    server = serve(Behaviour(ttft_s=0.01, itl_s=0.001, tokens_per_chunk=3, running_usage=False))
    run = run_load(plan_for(server, ClosedLoop(2), 6)).require_valid()
    assert not run.token_times_known
    assert {(len(request.token_s), request.output_tokens) for request in run.requests} == {(2, 4)}


def test_reasoning_is_counted_apart(serve: Serve) -> None:
    server = serve(Behaviour(ttft_s=0.01, itl_s=0.001, reasoning_tokens=3))
    target = Target(server.url, "mock", Api.CHAT)
    run = run_load(plan_for(server, ClosedLoop(2), 4, target=target)).require_valid()
    for request in run.requests:
        assert (request.reasoning_tokens, request.output_tokens) == (3, 4)
        assert request.first_answer_s is not None
        assert request.first_answer_s >= request.chunk_s[0]


def test_token_ids_go_in_and_come_back(serve: Serve) -> None:
    server = serve(QUICK)
    target = Target(server.url, "mock", extra={"return_token_ids": True})
    asked = [Prompt((5, 6, 7), 4, input_tokens=3) for _ in range(4)]
    run = run_load(plan_for(server, ClosedLoop(2), 4, target=target, prompts=asked)).require_valid()
    assert all(request.token_ids is not None and len(request.token_ids) == 4 for request in run.requests)


def test_warm_up_is_in_no_figure(serve: Serve) -> None:
    server = serve(QUICK)
    run = run_load(plan_for(server, ClosedLoop(2), 4, warm_up=prompts(6)))
    assert (len(run.warm_up), len(run.requests), len(server.log)) == (6, 4, 10)
    assert {r.id for r in run.warm_up}.isdisjoint(r.id for r in run.requests)
    assert all(request.sent_s >= 0 for request in run.requests)


def test_connections_are_used_again(serve: Serve) -> None:
    run = run_load(plan_for(serve(QUICK), ClosedLoop(2), 12))
    assert sum(request.connected_s is not None for request in run.requests) == 2


def test_a_prompt_larger_than_the_socket_takes_at_once_arrives_whole(serve: Serve) -> None:
    big = [Prompt(tuple([12345] * 200_000), 2, input_tokens=200_000) for _ in range(3)]
    run = run_load(plan_for(serve(QUICK), ClosedLoop(2), 3, prompts=big, limits=Limits())).require_valid()
    assert {request.usage.prompt_tokens for request in run.requests if request.usage} == {200_000}


def test_several_workers_carry_the_same_plan_on_one_clock(serve: Serve) -> None:
    server = serve(QUICK)
    run = run_load(plan_for(server, ClosedLoop(4), 16, workers=2)).require_valid()
    assert [request.prompt_index for request in run.requests] == list(range(16))
    assert len(run.saturation) == 2
    served = {request.id: request for request in server.log}
    for request in run.requests:
        assert run.started_s + request.sent_s <= served[request.id].received_ns / 1e9


def test_a_run_that_its_own_client_limited_is_invalid_and_says_so(serve: Serve) -> None:
    run = run_load(plan_for(serve(QUICK), constant(200, 10), 10, rules=Rules(max_lag_s=0.0, max_beat_lag_s=0.0)))
    assert len(run.invalid) == 2
    assert all("limited by its own client" in reason for reason in run.invalid)
    with pytest.raises(InvalidRunError, match="limited by its own client"):
        run.require_valid()


def test_a_run_of_one_batch_has_no_steady_window(serve: Serve) -> None:
    run = run_load(plan_for(serve(QUICK), ClosedLoop(4), 4))
    assert measurement_window(run.timings, 4).kind is WindowKind.WHOLE


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        (Behaviour(ttft_s=0.01, itl_s=0.001, fault=Fault.FEWER_TOKENS), "2 tokens answered where 4 were asked"),
        (Behaviour(ttft_s=0.01, itl_s=0.001, fault=Fault.NO_USAGE), "told no usage"),
        (Behaviour(ttft_s=0.01, itl_s=0.001, added_prompt_tokens=3), "another tokenizer"),
        (Behaviour(ttft_s=0.01, itl_s=0.001, fault=Fault.BLANK), "blank"),
    ],
)
def test_answers_that_are_not_what_was_asked_make_the_run_invalid(
    serve: Serve, behaviour: Behaviour, says: str
) -> None:
    run = run_load(plan_for(serve(behaviour), ClosedLoop(2), 6))
    assert any(says in reason for reason in run.invalid)
    with pytest.raises(InvalidRunError):
        run.require_valid()


def test_raw_requests_keep_the_events_of_failed_ones(serve: Serve) -> None:
    server = serve(Behaviour(ttft_s=0.01, itl_s=0.001, fault=Fault.DIE, fault_every=10, fault_after=2))
    run = run_load(plan_for(server, ClosedLoop(2), 20, rules=Rules(10, 10, max_failed_share=0.2)))
    raw = run.raw_requests(repeat=3)
    failed = [request for request in raw if request.error is not None]
    assert len(failed) == len(run.failed) == 2
    assert all(request.error is not None and request.error.startswith("died") for request in failed)
    assert {len(request.token_s) for request in failed} == {2}
    assert {request.repeat for request in raw} == {3}
    assert len({request.id for request in run.requests}) == 20


def test_raw_requests_keep_what_the_server_took_from_its_cache(serve: Serve) -> None:
    server = serve(Behaviour(ttft_s=0.01, itl_s=0.001, prefix_cache=True))
    raw = run_load(plan_for(server, ClosedLoop(2), 4)).raw_requests()
    assert all(request.cached_tokens is not None for request in raw)


def test_a_failed_request_is_never_sent_again(serve: Serve) -> None:
    server = serve(Behaviour(ttft_s=0.01, itl_s=0.001, fault=Fault.STATUS_500, fault_every=5))
    run = run_load(plan_for(server, ClosedLoop(2), 20, rules=Rules(10, 10, max_failed_share=0.3)))
    assert len(server.log) == 20
    assert len(run.failed) == 4


@pytest.mark.parametrize(
    ("arrivals", "count", "workers"),
    [(ClosedLoop(2), 0, 1), (ClosedLoop(4), 3, 1), (OpenLoop((0.0, 1.0)), 3, 1), (ClosedLoop(2), 4, 3)],
)
def test_a_plan_that_cannot_be_carried_is_refused(
    serve: Serve, arrivals: ClosedLoop | OpenLoop, count: int, workers: int
) -> None:
    server = serve(QUICK)
    with pytest.raises(InvalidInputError):
        run_load(plan_for(server, arrivals, count, workers=workers))
    assert not server.log


def test_progress_tells_of_every_request(serve: Serve) -> None:
    told: list[tuple[int, int]] = []
    run_load(plan_for(serve(QUICK), ClosedLoop(2), 6), lambda done, total: told.append((done, total)))
    assert told == [(done, 6) for done in range(1, 7)]


def test_limits_do_not_end_a_healthy_answer(serve: Serve) -> None:
    server = serve(Behaviour(ttft_s=0.15, itl_s=0.15))
    run = run_load(plan_for(server, ClosedLoop(1), 2, limits=Limits(silence_s=0.4)))
    assert not run.failed
