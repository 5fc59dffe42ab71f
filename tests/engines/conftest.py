"""Models that every real engine is held against: the shipped one, and a random OLMoE."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, OlmoeConfig

from moe_cap.measure.model_files import ModelFiles, find_model
from moe_cap.submission import Submission
from tests.measure.tiny_models import VOCABULARY, write_tokenizer

SHIPPED = Path(__file__).resolve().parents[2] / "assets" / "cap-tiny-moe"
OLMOE = {
    "vocab_size": VOCABULARY, "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 4, "intermediate_size": 64, "num_experts": 16, "num_experts_per_tok": 4,
    "max_position_embeddings": 512, "initializer_range": 0.1, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0,
}  # fmt: skip


@pytest.fixture(scope="session")
def shipped_files() -> ModelFiles:
    return find_model(Submission(model=str(SHIPPED)))


def write_olmoe(folder: Path) -> Path:
    """The same random weights every time."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(OlmoeConfig(**OLMOE), dtype=torch.float32).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def olmoe_files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return find_model(Submission(model=str(write_olmoe(tmp_path_factory.mktemp("random-olmoe")))))
