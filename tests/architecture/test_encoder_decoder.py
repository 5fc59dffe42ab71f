"""Encoders and what is decoded from them: FLOPs equal torch's counter, caches equal the model's own tensors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers.modeling_outputs import MoEModelOutput

from moe_cap.architecture import Architecture, parse_config
from moe_cap.architecture.encoder_decoder import DecoderAttention, EncoderAttention
from moe_cap.architecture.reach import both_sides
from moe_cap.errors import TraceError
from moe_cap.metrics.bytes_and_flops import step_bytes, step_flops
from moe_cap.metrics.residency import cache_bytes
from moe_cap.planner import requirement
from moe_cap.precision import stored_bytes, uniform_storage
from moe_cap.routing import decode_step, encoder_step, prefill_step, with_all_experts, with_uniform_routing
from tests.architecture.configs import LABELLING, TINY, TWO_STACKS
from tests.architecture.test_flops_and_cache import small_model

pytestmark = pytest.mark.model
SOURCE, TARGET = 11, 7
BF16 = uniform_storage("bf16")


def encoder_of(arch: Architecture) -> Architecture:
    assert arch.encoder is not None
    return arch.encoder


def run(model: torch.nn.Module, **inputs: Any) -> tuple[Any, int]:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        answer = model(**inputs)
    return answer, int(counter.get_total_flops())


def masked_half(arch: Architecture) -> int:
    """What an eager kernel computes above the diagonal of the decoder's self-attention, and throws away."""
    pairs = TARGET * TARGET - TARGET * (TARGET + 1) // 2
    mixers = [layer.mixer for layer in arch.layers if isinstance(layer.mixer, DecoderAttention)]
    return sum(4 * mixer.num_heads * mixer.qk_head_dim * pairs for mixer in mixers)


@pytest.mark.parametrize("name", TWO_STACKS)
def test_flops_of_both_passes_and_of_a_decode_step_equal_torchs_counter(name: str) -> None:
    arch, model = parse_config(TWO_STACKS[name]), small_model(TWO_STACKS[name])
    source, target = torch.arange(SOURCE)[None] + 2, torch.arange(TARGET)[None] + 2
    answer, counted = run(model, input_ids=source, decoder_input_ids=target)
    encoder = step_flops(encoder_of(arch), encoder_step((SOURCE,))).total
    prefill = replace(prefill_step((TARGET,)), logit_rows=TARGET, source_tokens=(SOURCE,))
    assert counted == encoder + step_flops(arch, prefill).total + masked_half(arch)
    _, counted = run(
        model, encoder_outputs=MoEModelOutput(answer.encoder_last_hidden_state), decoder_input_ids=target[:, :1],
        past_key_values=answer.past_key_values,
    )  # fmt: skip
    assert counted == step_flops(arch, decode_step((TARGET + 1,), source_tokens=(SOURCE,))).total


@pytest.mark.parametrize("name", TWO_STACKS)
def test_both_caches_equal_their_tensors(name: str) -> None:
    arch, model = parse_config(TWO_STACKS[name]), small_model(TWO_STACKS[name])
    source, target = torch.arange(SOURCE)[None] + 2, torch.arange(TARGET)[None] + 2
    cache = run(model, input_ids=source, decoder_input_ids=target)[0].past_key_values

    def held(one: Any) -> int:
        return sum(2 * (layer.keys.numel() + layer.values.numel()) for layer in one.layers)  # bytes of bf16

    assert held(cache.self_attention_cache) == cache_bytes(arch, BF16, (TARGET,))
    assert held(cache.cross_attention_cache) == cache_bytes(encoder_of(arch), BF16, (SOURCE,))
    encoded = with_uniform_routing(encoder_step((SOURCE,)), encoder_of(arch))
    assert step_bytes(encoder_of(arch), encoded, BF16).kv_written == held(cache.cross_attention_cache)
    decoded = with_uniform_routing(decode_step((TARGET,), source_tokens=(SOURCE,)), arch)
    read = held(cache.self_attention_cache) + held(cache.cross_attention_cache)
    assert step_bytes(arch, decoded, BF16).kv_read == read


@pytest.mark.parametrize("name", TWO_STACKS)
def test_the_two_passes_with_all_experts_read_every_weight_once(name: str) -> None:
    arch = parse_config(TWO_STACKS[name])
    encoder = encoder_of(arch)
    decoded = step_bytes(arch, with_all_experts(decode_step((TARGET,), source_tokens=(SOURCE,)), arch), BF16)
    encoded = step_bytes(encoder, with_all_experts(encoder_step((SOURCE,)), encoder), BF16)
    rows = decoded.embedding + encoded.embedding
    assert decoded.weights_read + encoded.weights_read - rows == stored_bytes(arch, BF16)


def test_a_source_is_asked_for_where_there_is_an_encoder_and_refused_elsewhere() -> None:
    arch = parse_config(TWO_STACKS["nllb-moe"])
    with pytest.raises(TraceError, match="--source"):
        step_flops(arch, decode_step((4, 4), source_tokens=(8,)))
    with pytest.raises(TraceError, match="no encoder"):
        step_flops(parse_config(TINY["mixtral"]), decode_step((4,), source_tokens=(8,)))
    with pytest.raises(TraceError, match="source_tokens"):
        decode_step((4,), source_tokens=(0,))


def test_a_longer_source_costs_bandwidth_and_memory() -> None:
    arch = parse_config(TWO_STACKS["switch_transformers"])
    short, long = (
        requirement(arch, BF16, batch=2, context_tokens=4, tpot_s=0.1, source_tokens=tokens) for tokens in (8, 80)
    )
    per_token = 2 * 2 * 4 * 10 * 5
    assert long.memory.kv_bytes - short.memory.kv_bytes == 2 * 72 * per_token
    assert (long.bytes_per_s - short.bytes_per_s) * 0.1 == pytest.approx(2 * 72 * per_token)


def test_flops_of_a_labelled_text_equal_torchs_counter() -> None:
    config = LABELLING["openai_privacy_filter"]
    arch = parse_config(config)
    _, counted = run(small_model(config), input_ids=torch.arange(SOURCE)[None] + 1)
    eager = replace(arch, layers=tuple(replace(each, mixer=_unmasked(each.mixer)) for each in arch.layers))
    assert counted == step_flops(eager, replace(prefill_step((SOURCE,)), logit_rows=SOURCE)).total


def _unmasked(mixer: object) -> EncoderAttention:
    assert isinstance(mixer, EncoderAttention)
    assert mixer.window == 3
    return replace(mixer, window=None)


def test_an_encoder_has_no_decode_step() -> None:
    arch = parse_config(LABELLING["openai_privacy_filter"])
    step = with_uniform_routing(decode_step((9,)), arch)
    with pytest.raises(TraceError, match="whole text"):
        step_flops(arch, step)
    with pytest.raises(TraceError, match="whole text"):
        step_bytes(arch, step, BF16)


@given(tokens=st.integers(0, 40), window=st.none() | st.integers(1, 50))
def test_pairs_on_both_sides_equal_counting(tokens: int, window: int | None) -> None:
    limit = tokens if window is None else window
    counted = sum(abs(one - other) <= limit for one in range(tokens) for other in range(tokens))
    assert both_sides(tokens, window) == counted
