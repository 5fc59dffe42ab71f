"""DeepSeek-V4: compressed attention, hyper-connections, hash-routed first layers."""

from __future__ import annotations

from moe_cap.architecture.blocks import decoder, gated_moe, pre_norms, top_k_of
from moe_cap.architecture.config import Config
from moe_cap.architecture.families.deepseek import correction_bias
from moe_cap.architecture.feed_forward import MoeFfn
from moe_cap.architecture.mixers import CompressedAttention
from moe_cap.architecture.model import Architecture, Layer
from moe_cap.architecture.reach import Strided, Window
from moe_cap.architecture.weights import Weight, gated_mlp, linear, norm, vector

SLIDING, SPARSE, HEAVY = "sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"
ATTENTION, FFN = "attn", "ffn"
NAMES = ("w1", "w3", "w2")
COMPRESSOR = f"{ATTENTION}.compressor"


def _layer_types(config: Config, number: int) -> tuple[str, ...]:
    """`compress_ratios` lists 0 (window only), 4 (sparse) or 128 (heavy) per layer; entries past the end are MTP's."""
    ratios = config.items("compress_ratios", kind=int)
    if ratios is not None:
        if len(ratios) < number:
            raise config.complain("compress_ratios", f"{len(ratios)} entries: expected one for each of {number} layers")
        return tuple(map(_kind_of, ratios[:number]))
    default = [HEAVY if i < 2 or i % 2 == 0 else SPARSE for i in range(number)]
    return config.layer_types(number, (SLIDING, SPARSE, HEAVY), default=default)


def _kind_of(ratio: int) -> str:
    return SLIDING if not ratio else SPARSE if ratio < 32 else HEAVY


def _rates(config: Config) -> dict[str, int]:
    """Positions per compressed entry, by kind of layer."""
    rates = {SPARSE: 4, HEAVY: 128}
    if config.has("compress_rates"):
        section = config.section("compress_rates")
        return {kind: section.size(kind, default=rate) for kind, rate in rates.items()}
    listed = config.items("compress_ratios", kind=int) or ()
    return {kind: min((r for r in listed if r and (r < 32) == (kind == SPARSE)), default=rates[kind]) for kind in rates}


def _compressor(prefix: str, hidden_size: int, width: int, rate: int, overlap: int) -> tuple[Weight, ...]:
    """Pools `rate` positions with a learned gate; sparse layers pool overlapping windows, hence twice the width."""
    return (
        Weight(f"{prefix}.position_bias", (rate, overlap * width), 1, elementwise=True),
        *linear(f"{prefix}.kv_proj", overlap * width, hidden_size, tp_ways=1),
        *linear(f"{prefix}.gate_proj", overlap * width, hidden_size, tp_ways=1),
        *norm(f"{prefix}.kv_norm", width),
    )


def _indexer(config: Config, rate: int) -> tuple[Weight, ...]:
    hidden_size, prefix = config.size("hidden_size"), f"{COMPRESSOR}.indexer"
    heads, width = config.size("index_n_heads"), config.size("index_head_dim")
    return (
        *_compressor(prefix, hidden_size, width, rate, 2),
        *linear(f"{prefix}.q_b_proj", heads * width, config.size("q_lora_rank"), tp_ways=1),
        *linear(f"{prefix}.scorer.weights_proj", heads, hidden_size, tp_ways=1),
    )


def _attention(config: Config, kind: str) -> CompressedAttention:
    hidden_size, heads, head_dim = (
        config.size("hidden_size"),
        config.size("num_attention_heads"),
        config.size("head_dim"),
    )
    q_rank, groups, o_rank = config.size("q_lora_rank"), config.size("o_groups"), config.size("o_lora_rank")
    weights = (
        *vector(f"{ATTENTION}.sinks", heads, tp_ways=heads),
        *linear(f"{ATTENTION}.q_a_proj", q_rank, hidden_size, tp_ways=1),
        *norm(f"{ATTENTION}.q_a_norm", q_rank),
        *linear(f"{ATTENTION}.q_b_proj", heads * head_dim, q_rank, tp_ways=heads),
        *linear(f"{ATTENTION}.kv_proj", head_dim, hidden_size, tp_ways=1),
        *norm(f"{ATTENTION}.kv_norm", head_dim),
        *linear(f"{ATTENTION}.o_a_proj", groups * o_rank, heads * head_dim // groups, tp_ways=groups),
        *linear(f"{ATTENTION}.o_b_proj", hidden_size, groups * o_rank, tp_ways=groups),
    )
    window = Window(config.size("sliding_window"))
    if kind == SLIDING:
        return CompressedAttention(weights, heads, head_dim, window)
    rate = _rates(config)[kind]
    if kind == HEAVY:
        pooled = _compressor(COMPRESSOR, hidden_size, head_dim, rate, 1)
        return CompressedAttention((*weights, *pooled), heads, head_dim, window, Strided(rate))
    pooled = (*_compressor(COMPRESSOR, hidden_size, head_dim, rate, 2), *_indexer(config, rate))
    picks = Strided(rate, config.size("index_topk"))
    index_heads, index_dim = config.size("index_n_heads"), config.size("index_head_dim")
    return CompressedAttention((*weights, *pooled), heads, head_dim, window, picks, index_heads, index_dim)


def _mixture(config: Config, *, hashed: bool) -> MoeFfn:
    """The first layers look the experts of a token id up in a table instead of scoring them."""
    hidden_size, width = config.size("hidden_size"), config.size("moe_intermediate_size")
    num_experts, num_shared = config.size("n_routed_experts"), config.count("n_shared_experts", default=1)
    top_k = top_k_of(config, num_experts, "num_experts_per_tok")
    table = Weight(f"{FFN}.gate.tid2eid", (config.size("vocab_size"), top_k), 1, True, "int64", lookup=1)
    return gated_moe(
        hidden_size,
        width,
        num_experts,
        top_k,
        prefix=FFN,
        expert=gated_mlp(f"{FFN}.experts.0", hidden_size, width, names=NAMES),
        router=(
            *linear(f"{FFN}.gate", num_experts, hidden_size, tp_ways=1),
            table if hashed else correction_bias(f"{FFN}.gate.", num_experts),
        ),
        shared=gated_mlp(f"{FFN}.shared_experts", hidden_size, width * num_shared, names=NAMES) if num_shared else (),
    )


def hyper_connections(config: Config) -> tuple[Weight, ...]:
    """Mixing of the `hc_mult` residual streams around attention and mixture, in fp32."""
    streams, hidden_size = config.size("hc_mult", default=4), config.size("hidden_size")
    outputs = streams * streams + 2 * streams
    return tuple(
        Weight(f"{block}.{name}", shape, 1, dtype="fp32")
        for block in ("attn_hc", "ffn_hc")
        for name, shape in (("fn", (outputs, streams * hidden_size)), ("base", (outputs,)), ("scale", (3,)))
    )


def hyper_head(config: Config) -> tuple[Weight, ...]:
    """Merges the residual streams after the last layer."""
    streams, hidden_size = config.size("hc_mult", default=4), config.size("hidden_size")
    return (
        Weight("model.hc_head.hc_fn", (streams, streams * hidden_size), 1, dtype="fp32"),
        Weight("model.hc_head.hc_base", (streams,), 1, dtype="fp32"),
        Weight("model.hc_head.hc_scale", (1,), 1, dtype="fp32"),
    )


def _hash_layers(config: Config, number: int) -> int:
    """Layers that look their experts up."""
    kinds = config.items("mlp_layer_types", kind=str, length=number)
    return kinds.count("hash_moe") if kinds else config.count("num_hash_layers", default=3)


def _mtp(config: Config, number: int, moe: MoeFfn) -> tuple[Layer, ...]:
    """A whole layer, behind a matrix for the embedding and one for the streams (vllm/models/deepseek_v4/nvidia/mtp.py).

    Each merges the streams with a head of its own.
    """
    hidden_size, ratios = config.size("hidden_size"), config.items("compress_ratios", kind=int) or ()
    layers = config.count("num_nextn_predict_layers", default=0)
    kinds = [_kind_of(ratio) for ratio in ratios[number : number + layers]] or [SLIDING] * layers
    joins = (
        *linear("e_proj", hidden_size, hidden_size),
        *linear("h_proj", hidden_size, hidden_size),
        *norm("enorm", hidden_size),
        *norm("hnorm", hidden_size),
        *norm("shared_head.norm", hidden_size),
    )
    other = (*joins, *hyper_connections(config), *hyper_head(config))
    norms = pre_norms(hidden_size)
    return tuple(Layer(f"mtp.{i}", _attention(config, kind), moe, norms, other) for i, kind in enumerate(kinds))


def read(config: Config) -> Architecture:
    """V4 Flash and Pro."""
    hidden_size, number = config.size("hidden_size"), config.num_layers("num_hidden_layers")
    kinds, hashed = _layer_types(config, number), _hash_layers(config, number)
    mixers = {kind: _attention(config, kind) for kind in set(kinds)}
    scored, looked_up = _mixture(config, hashed=False), _mixture(config, hashed=True)
    norms, hyper = pre_norms(hidden_size), hyper_connections(config)

    def layer(index: int, path: str) -> Layer:
        return Layer(path, mixers[kinds[index]], looked_up if index < hashed else scored, norms, hyper)

    other, mtp = hyper_head(config), _mtp(config, number, scored)
    return decoder(config, layer, model_type="deepseek_v4", other=other, mtp=mtp)
