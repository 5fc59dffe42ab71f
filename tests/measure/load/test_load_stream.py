import json
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe_cap.measure.load.events import FailureKind, TokenCounting, Usage
from moe_cap.measure.load.stream import StreamReader
from moe_cap.measure.mock_script import Ask, Behaviour, script_of


def event(record: object, newline: bytes = b"\n") -> bytes:
    return b"data: " + json.dumps(record).encode() + newline * 2


def chunk(text: str, *, finish: str | None = None, **more: object) -> bytes:
    return event({"choices": [{"index": 0, "text": text, "finish_reason": finish, **more}]})


def total(prompt: int, completion: int) -> bytes:
    return event({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": completion}})


DONE = b"data: [DONE]\n\n"


def read(*fragments: bytes) -> StreamReader:
    reader = StreamReader()
    for at, fragment in enumerate(fragments, 1):
        reader.feed(at, fragment)
    reader.end()
    return reader


def mock_body(behaviour: Behaviour, ask: Ask) -> bytes:
    """The event stream of the mock server without its HTTP framing."""
    raw = b"".join(write.data or b"" for write in script_of(behaviour, ask, random.Random(0)))
    raw = raw.partition(b"\r\n\r\n")[2]
    body = b""
    while raw:
        size, _, raw = raw.partition(b"\r\n")
        body, raw = body + raw[: int(size, 16)], raw[int(size, 16) + 2 :]
    return body


@given(st.data(), st.integers(1, 9), st.integers(1, 4), st.booleans(), st.booleans())
def test_however_the_bytes_are_cut_the_same_is_read(
    data: st.DataObject, tokens: int, per_chunk: int, chat: bool, running: bool
) -> None:
    ask = Ask(3, chat, 5, tokens, running, None)
    body = mock_body(Behaviour(tokens_per_chunk=per_chunk), ask)
    if data.draw(st.booleans()):
        body = body.replace(b"\n", b"\r\n")
    cuts = sorted(data.draw(st.sets(st.integers(0, len(body)), max_size=12)) | {0, len(body)})
    reader = read(*(body[a:b] for a, b in pairwise(cuts)))
    whole = read(body)
    assert reader.failure is None
    assert (reader.text, list(reader.chunk_tokens), reader.usage) == (whole.text, list(whole.chunk_tokens), whole.usage)
    assert len(reader.chunk_ns) == -(-tokens // per_chunk)
    assert list(reader.chunk_ns) == sorted(reader.chunk_ns)


@given(st.binary(max_size=300))
def test_no_bytes_make_the_reader_raise(body: bytes) -> None:
    reader = read(body, body)
    assert reader.failure is not None


@pytest.mark.parametrize("per_chunk", [1, 3])
def test_running_usage_tells_the_tokens_of_a_chunk(per_chunk: int) -> None:
    reader = read(mock_body(Behaviour(tokens_per_chunk=per_chunk), Ask(0, True, 5, 9, True, None)))
    assert reader.counting is TokenCounting.RUNNING_USAGE
    assert list(reader.chunk_tokens) == [per_chunk] * (9 // per_chunk)


def test_token_ids_tell_the_tokens_of_a_chunk() -> None:
    reader = read(chunk("a b", token_ids=[5, 6]), chunk("", token_ids=[7], finish="length"), total(1, 3), DONE)
    assert reader.counting is TokenCounting.TOKEN_IDS
    assert reader.token_ids == (5, 6, 7)
    assert list(reader.chunk_tokens) == [2, 1]


def test_one_token_per_chunk_is_believed_when_the_total_confirms_it() -> None:
    reader = read(chunk("a"), chunk("b", finish="length"), total(1, 2), DONE)
    assert reader.counting is TokenCounting.ONE_PER_CHUNK
    assert list(reader.chunk_ns) == [1, 2]


def test_chunks_of_unknown_size_are_not_called_tokens() -> None:
    reader = read(chunk("a b"), chunk("c d", finish="length"), total(1, 4), DONE)
    assert reader.counting is TokenCounting.UNKNOWN


def test_a_total_in_the_last_chunk_is_no_running_count() -> None:
    last = event(
        {"choices": [{"text": "b", "finish_reason": "stop"}], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}
    )
    reader = read(chunk("a"), last, DONE)
    assert list(reader.chunk_tokens) == [1, 1]
    assert reader.counting is TokenCounting.ONE_PER_CHUNK


def test_an_empty_delta_is_not_the_first_token() -> None:
    role = event({"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}]})
    word = event({"choices": [{"delta": {"content": "hi"}, "finish_reason": "stop"}]})
    assert list(read(role, word, DONE).chunk_ns) == [2]


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_reasoning_is_counted_apart_and_is_the_first_token_but_not_the_answer(key: str) -> None:
    thought = event({"choices": [{"delta": {key: "hm", "content": None}, "finish_reason": None}]})
    word = event({"choices": [{"delta": {"content": "hi"}, "finish_reason": "stop"}]})
    reader = read(thought, thought, word, total(1, 3), DONE)
    assert (reader.reasoning_tokens, reader.text) == (2, "hi")
    assert (reader.chunk_ns[0], reader.first_answer_ns) == (1, 3)


def test_comments_and_other_fields_are_no_garbage() -> None:
    reader = read(b": ping\n\n", b"event: x\nid: 7\n" + chunk("a", finish="stop"), DONE)
    assert reader.failure is None


@pytest.mark.parametrize("last", [b"data: [DONE]\n", b"data: [DONE]", b"data: [DONE]\r\n"])
def test_an_answer_is_complete_without_the_last_blank_line(last: bytes) -> None:
    reader = read(chunk("a"), chunk("b", finish="length"), total(1, 2), last)
    assert reader.failure is None
    assert (reader.text, reader.done) == ("ab", True)


def test_a_usage_that_ends_the_body_is_read() -> None:
    reader = read(chunk("a"), chunk("b", finish="length"), total(1, 2).rstrip(b"\n"))
    assert reader.failure is None
    assert reader.usage == Usage(1, 2)


@pytest.mark.parametrize(
    ("fragments", "kind"),
    [
        ([chunk("a")], FailureKind.DIED),
        ([], FailureKind.DIED),
        ([chunk("a"), b'data: {"choi'], FailureKind.GARBAGE),
        ([b"<html>nope</html>\n\n"], FailureKind.GARBAGE),
        ([b"data: [1, 2]\n\n"], FailureKind.GARBAGE),
        ([b'data: {"choices": [7]}\n\n'], FailureKind.GARBAGE),
        ([b'data: {"choices": [], "usage": {"prompt_tokens": "x"}}\n\n'], FailureKind.GARBAGE),
        ([chunk("a"), event({"error": {"message": "out of memory"}}), DONE], FailureKind.ERROR_EVENT),
        ([DONE], FailureKind.EMPTY),
        ([total(1, 0), DONE], FailureKind.EMPTY),
    ],
)
def test_a_bad_stream_is_named_by_what_is_bad(fragments: list[bytes], kind: FailureKind) -> None:
    failure = read(*fragments).failure
    assert failure is not None
    assert failure.kind is kind
