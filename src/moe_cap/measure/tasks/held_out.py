"""Reads the held-out problems beside this file, for the `custom_dataset` of the task files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict


def load(*, problems: str, **_metadata: Any) -> DatasetDict:
    """The test split of one task.

    Args:
        problems: name of the jsonl file (`dataset_kwargs` of the task file).
        _metadata: what lm-eval hands over besides (version, config_source).
    """
    return DatasetDict(test=Dataset.from_json(str(Path(__file__).parent / problems)))
