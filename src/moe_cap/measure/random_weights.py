"""Checkpoints of real shapes with random weights: what a system's speed is, without its model's knowledge.

Every tensor is drawn and written by itself, so a checkpoint of any size takes the memory of one shard. Names and shapes
are those that transformers saves, which is what every engine reads.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.core_model_loading import revert_weight_conversion

from moe_cap.measure.model_files import RANDOM_WEIGHTS
from moe_cap.measure.random_mxfp4 import draw_packed, is_packed, packed_tensors

SHARD_BYTES = 4_000_000_000
SCALE = re.compile(r"norm\w*\.weight$")
"""Weights that multiply a normalised vector: one, as every model begins."""


def write_random_model(
    config: Mapping[str, Any],
    tokenizer: Path,
    folder: Path,
    *,
    seed: int = 0,
    device: str = "cpu",
    report: Callable[[int], None] = lambda written_bytes: None,
) -> Path:
    """Write a checkpoint in bf16, with its experts in mxfp4 where the configuration says so.

    Args:
        config: a config.json's values. The seed is added under `RANDOM_WEIGHTS`, by which results are marked.
        tokenizer: folder with a byte-level BPE tokenizer; it is given a name for every id of the model's vocabulary.
        folder: gets the files; made if it is not there.
        seed: of all weights.
        device: where they are drawn.
        report: gets the bytes of all weights so far, after every file of them.
    """
    packed = is_packed(config)
    folder.mkdir(parents=True, exist_ok=True)
    marked = {**config, RANDOM_WEIGHTS: seed}
    (folder / "config.json").write_text(json.dumps(marked, indent=1), encoding="utf-8")
    _write_tokenizer(tokenizer, folder, int(config["vocab_size"]))
    generator = torch.Generator(device).manual_seed(seed)
    width = float(config.get("initializer_range", 0.02))
    places: dict[str, str] = {}
    written_bytes = 0
    tensors = _meta_tensors(folder)
    for number, shard in enumerate(_shards(packed_tensors(tensors) if packed else tensors), start=1):
        name = f"model-{number:05}.safetensors"
        drawn = {key: _draw(key, meta, width, generator) for key, meta in shard.items()}
        save_file(drawn, folder / name, metadata={"format": "pt"})
        written_bytes += sum(tensor.nbytes for tensor in drawn.values())
        report(written_bytes)
        places |= dict.fromkeys(shard, name)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
    return folder


def _meta_tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Names and shapes of the checkpoint, without a byte of it."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    state: dict[str, torch.Tensor] = model.state_dict()
    if config.get_text_config().tie_word_embeddings:
        state.pop("lm_head.weight", None)
    return dict(revert_weight_conversion(model, state))


def _shards(tensors: Mapping[str, torch.Tensor]) -> Iterator[dict[str, torch.Tensor]]:
    shard: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if shard and sum(each.nbytes for each in shard.values()) + tensor.nbytes > SHARD_BYTES:
            yield shard
            shard = {}
        shard[name] = tensor
    yield shard


def _draw(name: str, meta: torch.Tensor, width: float, generator: torch.Generator) -> torch.Tensor:
    """Normal matrices, packed ones, norms of one, everything else (biases, corrections) zero."""
    empty = torch.empty(meta.shape, dtype=meta.dtype, device=generator.device)
    if meta.dtype == torch.uint8:
        drawn = draw_packed(name, empty, width, generator)
    elif SCALE.search(name):
        drawn = empty.fill_(1.0)
    elif meta.ndim >= 2 and meta.is_floating_point() and not name.endswith("bias"):
        drawn = empty.normal_(0.0, width, generator=generator)
    else:
        drawn = empty.zero_()
    return drawn.cpu().contiguous()


def _write_tokenizer(source: Path, folder: Path, vocab_size: int) -> None:
    """A tokenizer in which every id has a text of its own: a random model says any of them."""
    body = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary: dict[str, int] = body["model"]["vocab"]
    taken = set(vocabulary.values()) | {token["id"] for token in body["added_tokens"]}
    vocabulary |= {f"~{index}~": index for index in range(vocab_size) if index not in taken}
    (folder / "tokenizer.json").write_text(json.dumps(body, ensure_ascii=False), encoding="utf-8")
    settings = (source / "tokenizer_config.json").read_text(encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(settings, encoding="utf-8")
