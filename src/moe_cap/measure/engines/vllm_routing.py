"""Where vLLM's formats of routing are known: the array of its API, and the lines of our recording worker. Pure."""

from __future__ import annotations

import base64
import binascii
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moe_cap.errors import InvalidRunError
from moe_cap.measure.engines.base import Member

Ids = NDArray[np.int16]


def parse_returned_experts(answer: Mapping[str, Any], moe_layers: Sequence[int]) -> Ids:
    """`choices[0].routed_experts` of `--enable-return-routed-experts`, [positions, MoE layers, top_k].

    The field is base64 of an .npy file, uint8 or uint16 [positions, layers, top_k]: the positions are those of prompt
    and output but the last token, dense layers are rows of zeros
    (vllm/entrypoints/openai/completion/protocol.py, 0.26 to 0.33).

    Raises:
        InvalidRunError: the field is not there or holds something else.
    """
    try:
        told = base64.b64decode(answer["choices"][0]["routed_experts"], validate=True)
        ids: Ids = np.load(io.BytesIO(told), allow_pickle=False)[:, list(moe_layers)].astype(np.int16)
    except (KeyError, IndexError, TypeError, ValueError, EOFError, binascii.Error) as error:
        raise InvalidRunError(f"vLLM returned no routed experts that can be read: {error!r}") from error
    return ids


@dataclass(frozen=True, slots=True)
class TracedPass:
    """One forward pass as the recording worker wrote it down; `experts` is [tokens, MoE layers, top_k]."""

    members: tuple[Member, ...]
    experts: Ids


def parse_trace(lines: Iterable[str]) -> tuple[TracedPass, ...]:
    """The lines of `inside/moe_cap_vllm_recorder.py`.

    Raises:
        InvalidRunError: a line is cut off, or its members do not add up to its tokens.
    """
    return tuple(_parse_line(line) for line in lines)


def _parse_line(line: str) -> TracedPass:
    try:
        told = json.loads(line)
        members = tuple(Member(str(name), int(first), int(number)) for name, first, number in told["members"])
        experts = np.frombuffer(base64.b64decode(told["ids"]), np.int16).reshape(told["shape"])
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidRunError(f"the recorder of vLLM left a line that cannot be read: {error!r}") from error
    scheduled = sum(member.num_tokens for member in members)
    if scheduled != len(experts):
        raise InvalidRunError(f"a pass of vLLM had {scheduled} tokens by its members and {len(experts)} by its routing")
    return TracedPass(members, experts)


def experts_of(passes: Iterable[TracedPass], request: str, positions: int) -> Ids:
    """Everything that was recorded for one request, [positions, MoE layers, top_k].

    Args:
        passes: in order.
        request: what vLLM's own name of the request begins with.
        positions: tokens that were computed for it.

    Raises:
        InvalidRunError: a position was computed by no pass, or by two.
    """
    parts: dict[int, Ids] = {}
    for traced in passes:
        row = 0
        for member in traced.members:
            if member.request_id.startswith(request):
                if member.first_position in parts:
                    raise InvalidRunError(f"vLLM computed position {member.first_position} of {request} twice")
                parts[member.first_position] = traced.experts[row : row + member.num_tokens]
            row += member.num_tokens
    ordered = [parts[first] for first in sorted(parts)]
    starts = [0, *np.cumsum([len(part) for part in ordered]).tolist()]
    if sorted(parts) != starts[:-1] or starts[-1] != positions:
        raise InvalidRunError(f"vLLM recorded {starts[-1]} of the {positions} positions of {request}")
    return np.concatenate(ordered)
