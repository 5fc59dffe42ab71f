"""A GGUF file's own list of tensors, and the accounting that rests on it: the file's bytes are the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from moe_cap.architecture import Architecture, parse_config
from moe_cap.errors import EngineStartError
from moe_cap.measure.engines.gguf_tensors import GgufFile, GgufTensor, gguf_storage, read_gguf
from moe_cap.measure.model_files import parts_of
from moe_cap.metrics.bytes_and_flops import step_bytes
from moe_cap.metrics.footprint import expert_bytes
from moe_cap.precision import StoragePlan, stored_bytes
from moe_cap.precision.formats import FP16
from moe_cap.routing import Step, StepKind

QWEN3: dict[str, Any] = {
    "model_type": "qwen3_moe", "vocab_size": 320, "hidden_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 64, "num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 512,
    "intermediate_size": 128, "decoder_sparse_step": 1, "mlp_only_layers": [], "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}  # fmt: skip
OUTSIDE = {"token_embd": (320, 256), "output": (320, 256), "output_norm": (256,)}
IN_LAYER = {
    "attn_q": (256, 256), "attn_k": (128, 256), "attn_v": (128, 256), "attn_output": (256, 256),
    "attn_q_norm": (64,), "attn_k_norm": (64,), "attn_norm": (256,), "ffn_norm": (256,), "ffn_gate_inp": (8, 256),
    "ffn_gate_exps": (8, 512, 256), "ffn_up_exps": (8, 512, 256), "ffn_down_exps": (8, 256, 512),
}  # fmt: skip


def kind_of(name: str) -> Kind:
    """As Q4_K_M mixes them: more bits for the output and for some layers' values and down projections."""
    if "norm" in name or "gate_inp" in name:
        return Kind.F32
    more = {"output.weight", "blk.0.attn_v.weight", "blk.0.ffn_down_exps.weight", "blk.2.ffn_down_exps.weight"}
    return Kind.Q6_K if name in more else Kind.Q4_K


def write(path: Path, shapes: dict[str, tuple[int, ...]], architecture: str = "qwen3moe") -> Path:
    """A file whose list is real and whose values are zero, by the library that llama.cpp's converter uses."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_K_M)
    writer.add_token_list([f"a long word of the vocabulary {number}" for number in range(2000)])
    for name, shape in shapes.items():
        kind = kind_of(name)
        block, size = gguf.GGML_QUANT_SIZES[kind]
        values = np.zeros((*shape[:-1], shape[-1] // block * size), dtype=np.uint8)
        writer.add_tensor(name, values.view(np.float32) if kind is Kind.F32 else values, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def shapes(layers: int = 3, **other: tuple[int, ...] | None) -> dict[str, tuple[int, ...]]:
    named: dict[str, tuple[int, ...] | None] = {**OUTSIDE}
    named |= {f"blk.{layer}.{name}": shape for layer in range(layers) for name, shape in IN_LAYER.items()} | other
    return {f"{name}.weight": shape for name, shape in named.items() if shape is not None}


def plan_of(architecture: Architecture, file: GgufFile) -> StoragePlan:
    stored = gguf_storage(architecture, file, kv=FP16, compute_dtype="int8")
    assert stored.untold == ()
    return stored.plan


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> GgufFile:
    return read_gguf(write(tmp_path_factory.mktemp("gguf") / "x.gguf", shapes()))


@pytest.fixture(scope="module")
def architecture() -> Architecture:
    return parse_config(QWEN3)


def test_the_list_has_tensors_alone(file: GgufFile) -> None:
    assert (file.architecture, file.file_type) == ("qwen3moe", "MOSTLY_Q4_K_M")
    assert len(file.tensors) == 3 + 3 * len(IN_LAYER)
    down = file.tensors["blk.0.ffn_down_exps.weight"]
    assert (down.kind, down.num_values, down.num_bytes) == ("Q6_K", 8 * 256 * 512, 8 * 256 * 2 * 210)


def test_every_byte_of_the_list_is_counted_once(file: GgufFile, architecture: Architecture) -> None:
    held = sum(tensor.num_bytes for tensor in file.tensors.values())
    assert stored_bytes(architecture, plan_of(architecture, file)) == held
    assert sum(file.bytes_by_kind().values()) == held
    assert list(file.bytes_by_kind()) == ["Q4_K", "Q6_K", "F32"]


def test_a_mixture_of_types_reaches_the_bytes_of_each_layer(file: GgufFile, architecture: Architecture) -> None:
    plan = plan_of(architecture, file)
    by_layer = [expert_bytes(layer, plan) for layer in architecture.layers]
    told = [
        sum(file.tensors[f"blk.{layer}.ffn_{name}_exps.weight"].num_bytes for name in ("gate", "up", "down")) / 8
        for layer in range(3)
    ]
    assert by_layer == told
    assert by_layer[0] == by_layer[2] > by_layer[1]


def test_a_step_reads_what_its_own_layers_store(file: GgufFile, architecture: Architecture) -> None:
    """As many experts in a layer of larger ones cost more: no average over the file would tell."""
    plan = plan_of(architecture, file)

    def read(*experts: float) -> float:
        return step_bytes(architecture, Step(StepKind.DECODE, (1,), (5,), experts, 1), plan).weights_read

    difference = read(4.0, 2.0, 2.0) - read(2.0, 4.0, 2.0)
    expected = 2 * (expert_bytes(architecture.layers[0], plan) - expert_bytes(architecture.layers[1], plan))
    assert difference == expected > 0


def test_layers_for_drafting_are_not_read(file: GgufFile) -> None:
    last = {name for name in file.tensors if name.startswith("blk.2.")}
    assert {tensor.name for tensor in file.read_by(2)} == set(file.tensors) - last


def test_a_tied_output_is_read_in_the_type_of_the_embedding(tmp_path: Path) -> None:
    tied = parse_config({**QWEN3, "tie_word_embeddings": True})
    file = read_gguf(write(tmp_path / "x.gguf", shapes(output=None)))
    plan = plan_of(tied, file)
    assert stored_bytes(tied, plan) == sum(tensor.num_bytes for tensor in file.tensors.values())
    assert plan.tensors["lm_head.weight"].name == plan.tensors["model.embed_tokens.weight"].name == "Q4_K"


def test_a_matrix_that_the_converter_cut_has_the_bytes_of_both_halves(architecture: Architecture) -> None:
    """MLA's key and value projection: one type for keys, whose rows are short, and another for values."""
    config = {
        "model_type": "deepseek_v2", "vocab_size": 320, "hidden_size": 256, "num_hidden_layers": 1, "n_group": 1,
        "num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 256, "moe_intermediate_size": 256,
        "n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1, "first_k_dense_replace": 0,
        "topk_group": 1, "kv_lora_rank": 256, "q_lora_rank": None, "qk_rope_head_dim": 32, "qk_nope_head_dim": 32,
        "v_head_dim": 32,
    }  # fmt: skip
    deepseek = parse_config(config)
    halves = {
        "blk.0.attn_k_b.weight": GgufTensor("blk.0.attn_k_b.weight", "Q5_0", 4 * 256 * 32, 4 * 256 * 22),
        "blk.0.attn_v_b.weight": GgufTensor("blk.0.attn_v_b.weight", "Q4_K", 4 * 32 * 256, 4 * 32 * 144),
    }
    stored = gguf_storage(deepseek, GgufFile("deepseek2", None, halves), kv=FP16, compute_dtype="int8")
    held = stored.plan.tensors["model.layers.0.self_attn.kv_b_proj.weight"]
    assert held.bytes_of((4 * 64, 256)) == 4 * 256 * 22 + 4 * 32 * 144
    assert "model.layers.0.self_attn.kv_b_proj.weight" not in stored.untold


def test_a_matrix_without_a_tensor_is_named_and_counted_in_the_usual_type(
    file: GgufFile, architecture: Architecture
) -> None:
    kept = {name: tensor for name, tensor in file.tensors.items() if name != "blk.1.attn_q.weight"}
    stored = gguf_storage(architecture, GgufFile("qwen3moe", None, kept), kv=FP16, compute_dtype="int8")
    assert stored.untold == ("model.layers.1.self_attn.q_proj.weight",)
    whole = sum(tensor.num_bytes for tensor in file.tensors.values())
    assert stored_bytes(architecture, stored.plan) == whole, "which was Q4_K"


@pytest.mark.parametrize(
    "kind", [kind for kind in Kind if gguf.GGML_QUANT_SIZES[kind][0] > 1], ids=lambda kind: kind.name
)
def test_every_quantised_type_has_its_exact_size(kind: Kind) -> None:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    held = GgufTensor("x", kind.name, 6 * block, 6 * size).format
    assert held.bytes_of((3, 2 * block)) == 6 * size


def test_what_is_no_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"nothing of the kind")
    with pytest.raises(EngineStartError, match="no whole GGUF"):
        read_gguf(tmp_path / "x.gguf")
    with pytest.raises(EngineStartError, match="no whole GGUF"):
        read_gguf(tmp_path / "absent.gguf")


def test_a_split_file_is_all_its_parts(tmp_path: Path) -> None:
    write(tmp_path / "m-00001-of-00002.gguf", {"token_embd.weight": (320, 256)})
    write(tmp_path / "m-00002-of-00002.gguf", {"output.weight": (320, 256)})
    first = tmp_path / "m-00001-of-00002.gguf"
    assert [part.name for part in parts_of(first)] == ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    assert set(read_gguf(first).tensors) == {"token_embd.weight", "output.weight"}
    (tmp_path / "m-00002-of-00002.gguf").unlink()
    with pytest.raises(EngineStartError, match="00002-of-00002"):
        read_gguf(first)
