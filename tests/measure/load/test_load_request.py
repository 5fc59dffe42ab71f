import json

import pytest

from moe_cap.errors import InvalidInputError
from moe_cap.measure.load import Api, Message, Prompt, Target
from moe_cap.measure.load.request import body_of, encode_request

SERVER = "http://host:8000/v1"


def test_the_answer_is_exactly_as_long_as_asked() -> None:
    body = body_of(Target(SERVER, "m"), Prompt("hello", 7))
    assert (body["max_tokens"], body["ignore_eos"], body["stream"]) == (7, True, True)
    assert body["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}


def test_fields_that_strict_servers_refuse_can_be_left_out() -> None:
    body = body_of(Target(SERVER, "m", ignore_eos=False, running_usage=False), Prompt("hello", 7))
    assert "ignore_eos" not in body
    assert body["stream_options"] == {"include_usage": True}


def test_each_kind_of_prompt_has_its_place() -> None:
    chat = Target(SERVER, "m", Api.CHAT)
    assert body_of(Target(SERVER, "m"), Prompt((1, 2), 3))["prompt"] == [1, 2]
    assert body_of(chat, Prompt("hi", 3))["messages"] == [{"role": "user", "content": "hi"}]
    turns = (Message("system", "be brief"), Message("user", "hi"))
    assert body_of(chat, Prompt(turns, 3))["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
    ]


@pytest.mark.parametrize(
    ("api", "content"), [(Api.CHAT, (1, 2)), (Api.COMPLETIONS, (Message("user", "x"),)), (Api.COMPLETIONS, ())]
)
def test_a_prompt_that_an_interface_does_not_take_is_refused(api: Api, content: object) -> None:
    with pytest.raises(InvalidInputError):
        body_of(Target(SERVER, "m", api), Prompt(content, 3))  # type: ignore[arg-type]


def test_the_encoded_request_is_whole_http() -> None:
    target = Target(SERVER + "/", "m", headers={"Authorization": "Bearer x"}, extra={"return_token_ids": True})
    head, _, body = encode_request(target, Prompt("hé", 3), "id-1").partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /v1/completions HTTP/1.1"
    assert {"Host: host:8000", f"Content-Length: {len(body)}", "X-Request-Id: id-1", "Authorization: Bearer x"} <= set(
        lines
    )
    assert json.loads(body)["return_token_ids"] is True


@pytest.mark.parametrize(
    "url", ["host:8000/v1", "ftp://host/v1", "http://", "http://host:99999/v1", "", "http://a b/v1"]
)
def test_something_that_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError, match="address"):
        Target(url, "m").split()
