"""The files of a model: found or fetched, checked before anything is loaded, and named by what they hold."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from moe_cap.errors import EngineStartError, SubmissionError
from moe_cap.submission import Submission

RANDOM_WEIGHTS = "moe_cap_random_weights"
"""Key of a config.json whose weights were drawn and not trained, with their seed; results mark them as speed only."""
WANTED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")
"""What is taken from a Hub repository: weights, configuration, tokenizer; neither code nor pickles."""


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model on this machine's disk.

    Attributes:
        name: Hub id, or the folder's own name.
        revision: Hub commit, or sha256 over names and contents of configuration and weights.
        config: the parsed config.json.
        weights: weight files in order.
    """

    name: str
    revision: str
    folder: Path
    config: dict[str, Any]
    weights: tuple[Path, ...]

    @property
    def weights_bytes(self) -> int:
        """Bytes of all weight files."""
        return sum(path.stat().st_size for path in self.weights)

    @property
    def random_weights(self) -> bool:
        """Whether the configuration says that the weights were drawn and carry no knowledge."""
        return RANDOM_WEIGHTS in self.config


def find_model(submission: Submission, token: str | None = None) -> ModelFiles:
    """Locate the model of a submission, from the Hub if need be.

    Args:
        submission: names the model.
        token: what gated models are read with. Never this machine's own login: strangers choose the name.

    Raises:
        SubmissionError: there is no such model, or its files do not hold together.
        EngineStartError: the Hub cannot be reached.
    """
    if not submission.is_folder:
        folder = _fetch(submission.model, submission.revision, token)
        return _check(submission.model, folder.name, folder)
    folder = submission.folder
    if not folder.is_dir():
        raise SubmissionError(f"there is no folder {submission.model}", field="model")
    files = _check(folder.resolve().name, "", folder)
    return ModelFiles(files.name, _fingerprint(files), files.folder, files.config, files.weights)


def find_description(submission: Submission, token: str | None = None) -> ModelFiles:
    """Configuration and tokenizer alone, for a model whose weights only a server holds.

    A Hub model keeps its commit; a folder has no revision then: which weights the server took is not known from here.

    Raises:
        SubmissionError: there is no such model, or no configuration of it.
        EngineStartError: the Hub cannot be reached.
    """
    if not submission.is_folder:
        folder = _fetch(submission.model, submission.revision, token, WANTED[1:])
        return ModelFiles(submission.model, folder.name, folder, _read_config(submission.model, folder), ())
    if not submission.folder.is_dir():
        raise SubmissionError(f"there is no folder {submission.model}", field="model")
    folder = submission.folder.resolve()
    return ModelFiles(folder.name, "", submission.folder, _read_config(folder.name, folder), ())


def _fetch(model: str, revision: str | None, token: str | None, wanted: Sequence[str] = WANTED) -> Path:
    try:
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(wanted), token=token or False))
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise SubmissionError(
            f"the Hub has no model {model} at {revision or 'its default branch'}", field="model"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise EngineStartError(f"{model} could not be fetched from the Hub: {error}") from error


def _check(name: str, revision: str, folder: Path) -> ModelFiles:
    config = _read_config(name, folder)
    weights = _weight_files(name, folder)
    for file in weights:
        _check_whole(file)
    return ModelFiles(name, revision, folder, config, weights)


def _read_config(name: str, folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise SubmissionError(f"{name} has no config.json", field="model")
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SubmissionError(f"config.json of {name} is not JSON: {error}", field="model") from error
    return config


def _weight_files(name: str, folder: Path) -> tuple[Path, ...]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        files = tuple(folder / Path(shard).name for shard in shards)
    else:
        files = tuple(sorted(folder.glob("*.safetensors")))
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        what = f"lacks {', '.join(missing)}" if missing else "has no .safetensors weights (pickles are not loaded)"
        raise SubmissionError(f"{name} {what}", field="model")
    return files


def _check_whole(path: Path) -> None:
    """A safetensors file is a length, a JSON header, and data up to the last offset that the header names."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = struct.unpack("<Q", head)[0] if len(head := file.read(8)) == 8 else size
        header = file.read(length) if length <= size - 8 else b""
    try:
        tensors = [entry for key, entry in json.loads(header).items() if key != "__metadata__"]
        expected = 8 + length + max((entry["data_offsets"][1] for entry in tensors), default=0)
    except (ValueError, KeyError, AttributeError) as error:
        raise SubmissionError(f"{path.name} is cut off or no safetensors file", field="model") from error
    if size != expected:
        raise SubmissionError(f"{path.name} is cut off: {size} of {expected} bytes", field="model")


def _fingerprint(files: ModelFiles) -> str:
    digest = hashlib.sha256()
    for path in (files.folder / "config.json", *files.weights):
        digest.update(path.name.encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
