"""Every mixture that transformers has is read here, or there is a reason why not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES, model_type_to_module_name

from moe_cap.architecture import FAMILIES

MODELS = Path(transformers.__file__).parent / "models"
MIXTURE = re.compile(
    r"^@use_experts_implementation|^class \w*(Experts|Top\w*Router|SparseMoe\w*|SparseMLP|MoE|Moe|MoeBlock)\(",
    re.MULTILINE,
)
NOT_READ = {
    "vitpose_backbone": "finds poses in images: no language model",
}


def folders_with_mixtures() -> list[str]:
    """Folders of transformers whose modeling file defines experts or a router."""
    files = sorted(MODELS.glob("*/modeling_*.py"))
    return sorted({file.parent.name for file in files if MIXTURE.search(file.read_text(encoding="utf-8"))})


def folders_read() -> set[str]:
    """Folders that define a model type which has a reader."""
    return {model_type_to_module_name(model_type) for model_type in FAMILIES if model_type in CONFIG_MAPPING_NAMES}


@pytest.mark.parametrize("folder", folders_with_mixtures())
def test_every_moe_family_that_transformers_has_is_read(folder: str) -> None:
    assert (folder in folders_read()) != (folder in NOT_READ)


def test_what_is_not_read_exists() -> None:
    assert set(NOT_READ) <= set(folders_with_mixtures())


def test_the_scan_finds_the_usual_mixtures() -> None:
    assert {"mixtral", "deepseek_v3", "gpt_oss", "qwen3_moe", "dbrx", "doge"} <= set(folders_with_mixtures())
