"""The files of a model: found or fetched, checked before anything is loaded, and named by what they hold."""

from __future__ import annotations

import json
import re
import shutil
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from moe_cap.architecture import Architecture, parse_config
from moe_cap.errors import EngineStartError, InvalidInputError, OutOfMemoryError, SubmissionError
from moe_cap.hardware import detect_machine
from moe_cap.measure.file_hashes import hash_files
from moe_cap.offerings import ENGINES
from moe_cap.precision import storage_of, stored_bytes
from moe_cap.submission import Submission

RANDOM_WEIGHTS = "moe_cap_random_weights"
"""Key of a config.json whose weights were drawn and not trained, with their seed; results mark them as speed only."""
DESCRIPTION = ("*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken")
"""What is taken from a Hub repository beside the weights: configuration, index, tokenizer; neither code nor pickles."""
TOKENIZERS = frozenset({"tokenizer.json", "tokenizer.model"})
GGUF = ".gguf"
FIRST_PART = re.compile(r"-00001-of-(?P<parts>\d{5})\.gguf$")
FOLDERS_BELOW = ("*/*",)
"""Never taken: other forms of the same weights (`original/`, `onnx/`)."""
GIB = 2**30


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
        ConfigError: nobody here reads its family; nothing of its weights was fetched then.
        OutOfMemoryError: this machine cannot hold its weights; likewise.
        EngineStartError: the Hub cannot be reached, or the disk is too small.
    """
    if not submission.is_folder:
        folder = _fetch_whole(submission, token)
        return _check(submission.model, folder.name, folder)
    folder = submission.folder
    if folder.suffix == GGUF:
        _refuse_gguf_unread(submission)
        files = _given_gguf(submission)
    elif folder.is_dir():
        files = _check(folder.resolve().name, "", folder)
    else:
        raise SubmissionError(f"there is no folder {submission.model}", field="model")
    return replace(files, revision=hash_files((files.folder / "config.json", *files.weights)))


def find_description(submission: Submission, token: str | None = None) -> ModelFiles:
    """Configuration and tokenizer alone, for a model whose weights only a server holds.

    A Hub model keeps its commit; a folder has no revision then: which weights the server took is not known from here.

    Raises:
        SubmissionError: there is no such model, or no configuration of it.
        EngineStartError: the Hub cannot be reached.
    """
    if not submission.is_folder:
        folder = _fetch(submission.model, submission.revision, token, DESCRIPTION)
        return ModelFiles(submission.model, folder.name, folder, _read_config(submission.model, folder), ())
    if submission.folder.suffix == GGUF:
        return replace(_given_gguf(submission), weights=())
    if not submission.folder.is_dir():
        raise SubmissionError(f"there is no folder {submission.model}", field="model")
    folder = submission.folder.resolve()
    return ModelFiles(folder.name, "", submission.folder, _read_config(folder.name, folder), ())


def parts_of(path: Path) -> tuple[Path, ...]:
    """All files of a model that `llama-gguf-split` cut, by the name of the first; else the file alone."""
    found = FIRST_PART.search(path.name)
    if found is None:
        return (path,)
    stem, parts = path.name[: found.start()], found["parts"]
    return tuple(path.with_name(f"{stem}-{number:05d}-of-{parts}{GGUF}") for number in range(1, int(parts) + 1))


def _refuse_gguf_unread(submission: Submission) -> None:
    able = [name for name, offer in ENGINES.items() if GGUF in offer.reads]
    if submission.engine not in able:
        what = f"{submission.engine} does not read {submission.folder.name}"
        raise SubmissionError(f"{what}: of the engines {', '.join(able)} do", field="engine")


def _given_gguf(submission: Submission) -> ModelFiles:
    """A GGUF file with the description of its model beside it, which the accounting and the client are read from.

    Raises:
        SubmissionError: a part of it is missing, or the description is.
    """
    path = submission.folder
    weights, beside = parts_of(path), {each.name for each in path.parent.glob("*")}
    missing = [part.name for part in weights if part.name not in beside]
    if missing:
        raise SubmissionError(f"there is no file {', '.join(missing)} in {path.parent}", field="model")
    offer = ENGINES.get(submission.engine)
    if offer is not None and GGUF not in offer.reads:
        able = ", ".join(each.name for each in ENGINES.values() if GGUF in each.reads)
        raise SubmissionError(
            f"{submission.engine} does not read {path.name}: of the engines {able} do", field="engine"
        )
    if "config.json" not in beside or not beside & TOKENIZERS:
        raise SubmissionError(
            f"{path.name} is not enough: put config.json and the tokenizer of the model that it was made from beside it"
            " (hf download ORGANISATION/MODEL --include '*.json' --local-dir FOLDER)",
            field="model",
        )
    return ModelFiles(path.stem, "", path.parent, _read_config(path.name, path.parent), weights)


def _fetch_whole(submission: Submission, token: str | None) -> Path:
    """The description first; the weights, and only those that its index names, once nothing speaks against them."""
    model = submission.model
    described = _fetch(model, submission.revision, token, DESCRIPTION)
    architecture = parse_config(_read_config(model, described))
    wanted = _indexed(described) or ("*.safetensors",)
    sizes = _sizes_on_hub(model, described.name, token)
    chosen = {name: size for name, size in sizes.items() if any(fnmatch(name, pattern) for pattern in wanted)}
    _refuse_what_cannot_be_held(model, architecture, submission.precision, sum(chosen.values()))
    missing = sum(size for name, size in chosen.items() if not (described / name).exists())
    if missing > (free := shutil.disk_usage(described).free):
        raise EngineStartError(
            f"{model}: {missing / GIB:.1f} GiB are to be fetched, the disk has {free / GIB:.1f} free"
        )
    return _fetch(model, described.name, token, (*DESCRIPTION, *wanted))


def _sizes_on_hub(model: str, revision: str, token: str | None) -> dict[str, int]:
    """Bytes of the files at the top of a repository; nothing if only this machine's cache can be asked."""
    try:
        info = HfApi(token=token or False).model_info(model, revision=revision, files_metadata=True)
    except (HfHubHTTPError, OSError):
        return {}
    return {each.rfilename: each.size or 0 for each in info.siblings or () if "/" not in each.rfilename}


def _refuse_what_cannot_be_held(model: str, architecture: Architecture, precision: str, file_bytes: int) -> None:
    """Compare the weights, stored or as asked, whichever is less, with all memory that this machine has.

    Raises:
        OutOfMemoryError: no engine could hold them here.
    """
    try:
        needed = min(file_bytes, stored_bytes(architecture, storage_of(architecture, precision)))
    except InvalidInputError:  # an engine may know a format that the accounting does not
        needed = file_bytes
    machine = detect_machine()
    memory = sum(each or 0 for each in (machine.dram_bytes, *(gpu.memory_bytes for gpu in machine.gpus)))
    if memory and needed > memory:
        raise OutOfMemoryError(
            f"{model} in {precision} has {needed / GIB:.1f} GiB of weights,"
            f" this machine {memory / GIB:.1f} GiB of memory"
        )


def _fetch(model: str, revision: str | None, token: str | None, wanted: Sequence[str]) -> Path:
    try:
        return Path(
            snapshot_download(
                model, revision=revision, allow_patterns=list(wanted), ignore_patterns=list(FOLDERS_BELOW),
                token=token or False,
            )
        )  # fmt: skip
    except HFValidationError as error:
        raise SubmissionError(f"the Hub has no such names: {error}", field="model") from error
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
    named = _indexed(folder) or (("model.safetensors",) if (folder / "model.safetensors").is_file() else ())
    files = tuple(folder / shard for shard in named) or tuple(sorted(folder.glob("*.safetensors")))
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        what = f"lacks {', '.join(missing)}" if missing else "has no .safetensors weights (pickles are not loaded)"
        raise SubmissionError(f"{name} {what}", field="model")
    return files


def _indexed(folder: Path) -> tuple[str, ...]:
    """The shards that the index names, in order; none without an index."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return ()
    weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    return tuple(sorted({Path(shard).name for shard in weight_map.values()}))


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
