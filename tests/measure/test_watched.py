"""What is known of the passes of a server that somebody else runs, with its counters scripted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from moe_cap.errors import ServerError
from moe_cap.measure.engines import watched
from moe_cap.measure.engines.arrivals import steps_of_arrivals
from moe_cap.measure.engines.base import Completion, Request, Untold
from moe_cap.measure.engines.watched import UNTOLD_STAGES, Unwatched, counter, watch
from moe_cap.routing import StepKind

PROMPT = (5, 6, 7)
REQUESTS = (Request("a", PROMPT, 6), Request("b", PROMPT, 6))
COMPLETIONS = tuple(
    Completion(request.id, (1, 2, 3, 4, 5, 6), 0.0, tuple(1.0 + 0.1 * index for index in range(6)), 1.6)
    for request in REQUESTS
)
TOKENS = 12


class Server:
    """Answers /metrics with one text after another, the last one again and again."""

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)

    def metrics(self) -> str:
        if not self.texts:
            raise ServerError("/metrics: HTTP 501")
        return self.texts.pop(0) if len(self.texts) > 1 else self.texts[0]


def vllm(*generated: float) -> Server:
    return Server(*(f'# HELP x\nvllm:generation_tokens_total{{engine="0"}} {value}\n' for value in generated))


def llama(*counted: tuple[int, int]) -> Server:
    """Tokens that were generated, and drafts that were verified."""
    text = "llamacpp:tokens_predicted_total {}\nllamacpp:spec_decode_num_drafts_total {}\n"
    return Server(*(text.format(*each) for each in counted))


def steps(name: str, server: Server, chunks: int = TOKENS, requests: Sequence[Request] = REQUESTS):
    return watch(name, server).steps(requests, COMPLETIONS, chunks)


def test_an_idle_server_of_a_known_kind_tells_its_decode_steps() -> None:
    found, reason = steps("vllm", vllm(100, 112))
    assert reason is None
    assert [len(step.members) for step in found] == [2] * 6
    assert [step.kind for step in found] == [StepKind.MIXED, *[StepKind.DECODE] * 5]
    assert [step.step_s for step in found[1:]] == pytest.approx([0.1] * 5)


def test_devices_that_may_be_pipeline_stages_hide_the_steps_of_a_server_that_has_such_stages() -> None:
    assert watch("vllm", vllm(100), may_be_stages=True) == Unwatched(UNTOLD_STAGES)
    assert not isinstance(watch("llama-cpp", llama((1, 0)), may_be_stages=True), Unwatched)


def test_somebody_else_served_meanwhile_hides_the_steps() -> None:
    found, reason = steps("vllm", vllm(100, 117))
    assert (found, reason) == ((), "the server counted +5 tokens beside ours: others were served in the same passes")


def test_a_counter_that_lags_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "SETTLES_S", 0.2)
    assert steps("vllm", vllm(100, 106, 112))[1] is None
    assert "-6 tokens" in str(steps("vllm", vllm(100, 106))[1])


def test_speculation_hides_the_steps() -> None:
    text = "vllm:spec_decode_num_drafts_total 3\nvllm:generation_tokens_total 100\n"
    assert "speculatively" in str(steps("vllm", Server(text))[1])
    assert "12 tokens came in 7 pieces" in str(steps("llama-cpp", llama((0, 0), (12, 0)), chunks=7)[1])


def test_drafts_that_were_verified_meanwhile_hide_the_steps_though_every_token_came_by_itself() -> None:
    assert steps("llama-cpp", llama((100, 7), (112, 7)))[1] is None
    assert steps("llama-cpp", llama((0, 0), (12, 4))) == ((), watched.SPECULATIVE)
    old = Server("llamacpp:tokens_predicted_total 0\n")
    assert "speculatively cannot be told: /metrics has no llamacpp:spec_decode" in str(steps("llama-cpp", old)[1])


def test_tokens_whose_times_are_not_known_hide_the_steps() -> None:
    pieces = [replace(done, tokens=(), token_s=done.token_s[::2], untold=Untold("text", 6)) for done in COMPLETIONS]
    found, reason = watch("vllm", vllm(100, 112)).steps(REQUESTS, pieces, 6)
    assert (found, reason) == (
        (),
        "12 tokens came in 6 pieces, and the server does not tell how many were in which",
    )
    assert steps_of_arrivals(REQUESTS, pieces, 0) == ()


def test_a_server_whose_counters_are_gone_after_the_load_says_so() -> None:
    class Once(Server):
        def metrics(self) -> str:
            told = super().metrics()
            self.texts.clear()
            return told

    found, reason = steps("vllm", Once(vllm(100).texts[0]))
    assert (found, reason) == ((), "whether others were served cannot be told: /metrics: HTTP 501")


def test_a_server_without_counters_is_told_how_to_have_them() -> None:
    found, reason = steps("llama-cpp", Server())
    assert found == ()
    assert "HTTP 501; start it with --metrics" in str(reason)
    assert "no vllm:generation_tokens_total" in str(steps("vllm", Server("up 1\n"))[1])


@pytest.mark.parametrize("name", [None, "unheard-of"])
def test_an_unknown_scheduler_tells_nothing(name: str | None) -> None:
    found, reason = watch(name, Server()).steps(REQUESTS, COMPLETIONS, TOKENS)
    assert found == ()
    assert "forms its forward passes" in str(reason)


def test_a_counter_is_summed_over_its_labels() -> None:
    assert counter('x_total{a="1"} 2\nx_total{a="2"} 3.5\nx_total_created 9\n', "x_total") == 5.5
