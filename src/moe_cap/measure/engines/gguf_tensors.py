"""What a GGUF file stores, tensor by tensor, and the same as a storage plan of our accounting.

Types and sizes come from the file's own list of tensors, without vocabulary and header. Names of a checkpoint are
turned into those of GGUF by llama.cpp's own table (package `gguf`); where its converter cuts a matrix in two or
keeps two in one tensor, `CUT` and `JOINED` say so. A matrix that still finds no tensor is counted in the file's most
frequent type, and whether the sum is right is checked as for every engine (`points.wrong_bytes`).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import gguf

from moe_cap.architecture import Architecture
from moe_cap.architecture.weights import Weight
from moe_cap.errors import EngineStartError
from moe_cap.measure.model_files import parts_of
from moe_cap.precision import StoragePlan
from moe_cap.precision.formats import BF16, FP16, FP32, WeightFormat
from moe_cap.precision.plan import StorageRule

PLAIN: dict[str, WeightFormat] = {"F32": FP32, "F16": FP16, "BF16": BF16}
SUFFIXES = (".weight", ".bias")
ONE_EXPERT = re.compile(r"\.experts\.0\.")
BLOCK = re.compile(r"^blk\.(\d+)\.")
CUT = {"kv_b_proj": ("k_b_proj", "v_b_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
"""Matrices of a checkpoint that the converter writes as two tensors (conversion/deepseek.py, gpt_oss.py)."""
JOINED = {
    "output": "token_embd", "attn_q": "attn_qkv", "attn_k": "attn_qkv", "attn_v": "attn_qkv",
    "ffn_gate_exps": "ffn_gate_up_exps", "ffn_up_exps": "ffn_gate_up_exps",
}  # fmt: skip
"""Where a tensor that is not there is kept: a tied output projection, and matrices side by side in one tensor."""


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """One tensor of the list; `kind` is its GGML type, such as `Q4_K`."""

    name: str
    kind: str
    num_values: int
    num_bytes: int

    @property
    def format(self) -> WeightFormat:
        """How its values are stored: plain numbers, or blocks along the rows with scales of their own."""
        block, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[self.kind]]
        if block == 1:
            return PLAIN.get(self.kind, WeightFormat(self.kind.lower(), 8 * block_bytes))
        width = int(next(letter for letter in self.kind if letter.isdigit()))
        return WeightFormat(self.kind, width, (1, block), scale_bits=8 * block_bytes - width * block)


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A model as GGUF.

    Attributes:
        architecture: as llama.cpp names it, `qwen3moe`.
        file_type: what the file says that most of its tensors are, `MOSTLY_Q4_K_M`; None where it does not say.
    """

    architecture: str
    file_type: str | None
    tensors: Mapping[str, GgufTensor]

    def read_by(self, num_layers: int) -> Iterator[GgufTensor]:
        """The tensors without those of layers behind the last, which are there for drafting and read by no step."""
        for name, tensor in self.tensors.items():
            block = BLOCK.match(name)
            if block is None or int(block[1]) < num_layers:
                yield tensor

    def bytes_by_kind(self) -> dict[str, int]:
        """Bytes of the tensors of each GGML type, the largest first."""
        sizes: Counter[str] = Counter()
        for tensor in self.tensors.values():
            sizes[tensor.kind] += tensor.num_bytes
        return dict(sizes.most_common())


def read_gguf(path: Path) -> GgufFile:
    """The list of tensors of a file, and of its further parts where it is split; values are not read.

    Raises:
        EngineStartError: it is no GGUF file, or a part of it is missing.
    """
    tensors: dict[str, GgufTensor] = {}
    readers = [_open(part) for part in parts_of(path)]
    for reader in readers:
        tensors |= {tensor.name: tensor for tensor in map(_tensor, reader.tensors)}
    kind = _field(readers[0], "general.file_type")
    names: dict[object, str] = {each.value: each.name for each in gguf.LlamaFileType}
    return GgufFile(str(_field(readers[0], "general.architecture")), names.get(kind), tensors)


def _open(path: Path) -> gguf.GGUFReader:
    try:
        return gguf.GGUFReader(path)
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise EngineStartError(f"{path} is no whole GGUF file: {error}") from error


def _field(reader: gguf.GGUFReader, name: str) -> object:
    field = reader.get_field(name)
    return None if field is None else field.contents()


def _tensor(found: gguf.ReaderTensor) -> GgufTensor:
    return GgufTensor(found.name, found.tensor_type.name, prod(map(int, found.shape)), int(found.n_bytes))


@dataclass(frozen=True, slots=True)
class GgufStorage:
    """How a file stores a model.

    Attributes:
        plan: the format of every tensor.
        untold: matrices of the architecture that no tensor of the file could be found for.
    """

    plan: StoragePlan
    untold: tuple[str, ...]


def gguf_storage(architecture: Architecture, file: GgufFile, *, kv: WeightFormat, compute_dtype: str) -> GgufStorage:
    """Every tensor of the architecture in the type that the file stores it in; vectors are fp32, as GGUF has them."""
    names = _Names(file)
    formats: dict[str, WeightFormat] = {}
    untold = []
    for path, weight, copies in _tensors(architecture):
        found = names.holders(path)
        if found:
            formats[path] = _format(found, weight, copies)
        elif weight.is_matrix:
            untold.append(path)
    by_values: Counter[WeightFormat] = Counter()
    for tensor in file.tensors.values():
        by_values[tensor.format] += tensor.num_values
    most = by_values.most_common(1)[0][0]
    plan = StoragePlan(
        f"gguf {most.name}", plain=FP32, rules=(StorageRule(most),), kv=kv, compute_dtype=compute_dtype, tensors=formats
    )
    return GgufStorage(plan, tuple(untold))


def _tensors(architecture: Architecture) -> Iterator[tuple[str, Weight, int]]:
    """Every tensor with its full name and how many alike there are of it in its layer."""
    outside: Iterable[Weight] = (
        *architecture.embedding, *architecture.lm_head, *architecture.norms, *architecture.other
    )  # fmt: skip
    yield from ((weight.name, weight, 1) for weight in outside)
    for layer in architecture.layers:
        yield from ((f"{layer.path}.{weight.name}", weight, copies) for _, weight, copies in layer.weights())


def _format(held_in: tuple[GgufTensor, ...], weight: Weight, copies: int) -> WeightFormat:
    if len({tensor.kind for tensor in held_in}) == 1:
        return held_in[0].format
    bits = 8 * sum(tensor.num_bytes for tensor in held_in) // copies
    return WeightFormat("+".join(tensor.kind for tensor in held_in), 0, constant_bits=bits)


class _Names:
    """From names of a checkpoint to tensors of a file."""

    def __init__(self, file: GgufFile) -> None:
        known = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
        blocks = [int(block[1]) for name in file.tensors if (block := BLOCK.match(name))]
        number = known.get(file.architecture)
        self._map = None if number is None else gguf.get_tensor_name_map(number, max(blocks, default=0) + 1)
        self._tensors = file.tensors

    def holders(self, path: str) -> tuple[GgufTensor, ...]:
        """The tensors that hold what a checkpoint keeps under this name; () where that is not known."""
        name = ONE_EXPERT.sub(".experts.", path).replace("language_model.", "")
        found = self._named(name)
        if found is not None:
            return (found,)
        for whole, halves in CUT.items():
            parts = [self._named(name.replace(whole, half)) for half in halves] if f".{whole}." in f"{name}." else []
            if parts and all(part is not None for part in parts):
                return tuple(part for part in parts if part is not None)
        return ()

    def _named(self, name: str) -> GgufTensor | None:
        mapped = None if self._map is None else self._map.get_name(name, try_suffixes=SUFFIXES)
        if mapped is None:
            return None
        if not mapped.endswith(SUFFIXES):  # experts that a checkpoint keeps as bare parameters
            mapped += SUFFIXES[0]
        stem, _, suffix = mapped.rpartition(".")
        block, _, last = stem.rpartition(".")
        elsewhere = ".".join(filter(None, (block, JOINED.get(last, last), suffix)))
        return self._tensors.get(mapped) or self._tensors.get(elsewhere)
