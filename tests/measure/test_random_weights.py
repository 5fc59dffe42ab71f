"""Random checkpoints: every engine's names, every id a text, the accounting's bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Mxfp4Config

from moe_cap.architecture import parse_config
from moe_cap.errors import SubmissionError
from moe_cap.measure import random_weights
from moe_cap.measure.model_files import find_model
from moe_cap.measure.random_weights import write_random_model
from moe_cap.precision import read_checkpoint, read_quantization, stored_bytes
from moe_cap.settings import CHECKOUT
from moe_cap.submission import Submission
from tests.measure.tiny_models import CONFIGS, MOE_FAMILIES

TOKENIZER = CHECKOUT / "assets" / "cap-tiny-moe"
SHAPES = CHECKOUT / "benchmarks" / "random_models"


def config_of(family: str) -> dict[str, object]:
    kind, settings = CONFIGS[family]
    return {**json.loads(kind(**settings).to_json_string(use_diff=False)), "model_type": family}


@pytest.mark.parametrize("family", MOE_FAMILIES)
def test_transformers_reads_every_tensor_of_it(family: str, tmp_path: Path) -> None:
    config = config_of(family)
    folder = write_random_model(config, TOKENIZER, tmp_path / family)
    model, report = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    matrices = [p for name, p in model.named_parameters() if p.ndim >= 2 and "bias" not in name]
    assert all(p.float().std() > 0.1 for p in matrices), "initializer_range is 0.3"
    assert torch.isfinite(model(torch.arange(5)[None]).logits).all()
    files = find_model(Submission(model=str(folder)))
    assert files.random_weights
    stored = sum(p.numel() for p in model.parameters())
    assert parse_config(files.config).parameters().total == stored


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    made = [
        write_random_model(config_of("olmoe"), TOKENIZER, tmp_path / name, seed=seed)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    one, same, other = (find_model(Submission(model=str(folder))).revision for folder in made)
    assert one == same != other


def test_large_models_are_written_in_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = find_model(Submission(model=str(write_random_model(config_of("olmoe"), TOKENIZER, tmp_path / "whole"))))
    monkeypatch.setattr(random_weights, "SHARD_BYTES", whole.weights_bytes // 4)
    written: list[int] = []
    folder = write_random_model(config_of("olmoe"), TOKENIZER, tmp_path / "parts", report=written.append)
    parts = find_model(Submission(model=str(folder)))
    assert len(written) == len(parts.weights), "a file is told as soon as it is there"
    assert written == sorted(written)
    assert written[-1] == pytest.approx(parts.weights_bytes, rel=0.02)
    assert len(whole.weights) == 1
    assert len(parts.weights) >= 4
    assert max(path.stat().st_size for path in parts.weights) < whole.weights_bytes / 2


def test_every_id_has_a_text_of_its_own(tmp_path: Path) -> None:
    folder = write_random_model(config_of("olmoe"), TOKENIZER, tmp_path / "m")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    known = AutoTokenizer.from_pretrained(TOKENIZER)
    assert len(tokenizer) == CONFIGS["olmoe"][1]["vocab_size"]
    texts = [tokenizer.decode([index]) for index in range(len(known), len(tokenizer))]
    assert len(set(texts)) == len(texts)
    assert all(text.strip() for text in texts)
    assert tokenizer.encode("12+34=") == known.encode("12+34=")


def packed_config() -> dict[str, object]:
    """gpt-oss at a size that a test can carry, its experts in mxfp4 as the published shape asks."""
    public = json.loads((SHAPES / "gpt-oss-20b.json").read_text(encoding="utf-8"))
    return config_of("gpt_oss") | {"quantization_config": public["quantization_config"], "dtype": "bfloat16"}


def test_packed_experts_take_the_bytes_that_the_accounting_counts(tmp_path: Path) -> None:
    folder = write_random_model(packed_config(), TOKENIZER, tmp_path / "packed")
    plan = read_quantization(folder, files := json.loads((folder / "config.json").read_text()))
    checkpoint = read_checkpoint(folder)
    assert plan.name == "mxfp4"
    assert stored_bytes(parse_config(files), plan) == checkpoint.num_bytes
    experts = [name for name in checkpoint.tensors if name.endswith(("_proj_blocks", "_proj_scales"))]
    assert len(experts) == 4 * files["num_hidden_layers"]
    assert {checkpoint.tensors[name].dtype for name in experts} == {"U8"}


def test_packed_experts_are_what_transformers_unpacks(tmp_path: Path) -> None:
    config = packed_config()
    folder = write_random_model(config, TOKENIZER, tmp_path / "packed")
    unpacking = Mxfp4Config(dequantize=True)
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.bfloat16, quantization_config=unpacking, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    (experts, *_) = [p for name, p in model.named_parameters() if name.endswith("experts.gate_up_proj")]
    width = float(str(config["initializer_range"]))
    assert width / 2**0.5 <= experts.float().std() <= width * 2**0.5, "the exponent is the nearest power of two"
    assert torch.isfinite(model(torch.arange(5)[None]).logits).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "'gptq'"), ({"hidden_size": 48}, "multiple of 32")],
)
def test_what_cannot_be_drawn_packed_is_refused(change: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match=said):
        write_random_model(packed_config() | change, TOKENIZER, tmp_path / "m")
