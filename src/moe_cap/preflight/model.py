"""Does the model exist: a folder of this machine, or a repository of the Hub, asked once and with a deadline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from moe_cap.architecture.config import read_config_file
from moe_cap.errors import ConfigError, SubmissionError
from moe_cap.precision.quantization import HF_QUANT_CONFIG
from moe_cap.store.hub_answers import NOT_AS_DOCUMENTED
from moe_cap.submission import Submission

DEADLINE_S = 6.0
"""Whatever the network does, the person who waits hears something by then."""
REQUEST_S = 3.0
WEIGHTS = ".safetensors"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json", "tiktoken.model")


@dataclass(frozen=True, slots=True)
class FoundModel:
    """A model that exists.

    Attributes:
        config: its config.json.
        weight_file_bytes: size of its weight files as they are stored.
        warning: what a person should know about how it was found.
        folder: where its config.json lies, and the hf_quant_config.json that some have beside it.
    """

    config: Mapping[str, Any]
    weight_file_bytes: int
    warning: str | None = None
    folder: Path | None = None


Look = Callable[[Submission], FoundModel]


def find_folder(submission: Submission) -> FoundModel:
    """Look at a folder of this machine.

    Raises:
        SubmissionError: there is none, or it lacks what an engine needs.
        ConfigError: its config.json cannot be read.
    """
    folder = submission.folder
    if folder.suffix == ".gguf":
        able = f"moe-cap profile --engine llama-cpp --model {submission.model}"
        raise SubmissionError(f"a GGUF file cannot be submitted; {able} measures it", field="model")
    if not folder.is_dir():
        raise SubmissionError(f"there is no folder {submission.model} on this machine", field="model")
    sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    _refuse_incomplete(submission.model, sizes)
    return FoundModel(read_config_file(folder), _weight_bytes(sizes), folder=folder)


def find_on_hub(submission: Submission, *, token: str | None = None, endpoint: str | None = None) -> FoundModel:
    """Ask the Hub, and this machine's cache when the Hub does not answer.

    Args:
        submission: names the model and its revision.
        token: what evaluations may read with. Never the login of this machine: a stranger who submits the name of a
            private model must learn nothing.
        endpoint: of the Hub, the public one if not given.

    Raises:
        SubmissionError: no such name, model or revision, it is gated, it is incomplete, or nothing answers.
        ConfigError: its config.json cannot be read.
    """
    model, revision = submission.model, submission.revision
    try:
        api = HfApi(endpoint, token=token or False)
        info = api.model_info(model, revision=revision, files_metadata=True, timeout=REQUEST_S)
        sizes = {each.rfilename: each.size or 0 for each in info.siblings or ()}
        _refuse_incomplete(model, sizes)
        config = Path(api.hf_hub_download(model, "config.json", revision=info.sha, etag_timeout=REQUEST_S))
        if HF_QUANT_CONFIG in sizes:
            api.hf_hub_download(model, HF_QUANT_CONFIG, revision=info.sha, etag_timeout=REQUEST_S)
        return FoundModel(read_config_file(config), _weight_bytes(sizes), folder=config.parent)
    except HFValidationError as error:
        raise SubmissionError(f"the Hub has no such names: {_first_line(error)}", field="model") from error
    except GatedRepoError as error:
        raise SubmissionError(f"{model} is gated: the worker needs a token that may read it", field="model") from error
    except RepositoryNotFoundError as error:
        raise SubmissionError(f"the Hub has no public model {model}", field="model") from error
    except RevisionNotFoundError as error:
        raise SubmissionError(f"{model} has no revision {revision}", field="revision") from error
    except LocalEntryNotFoundError as error:  # the network went away between the two questions
        return _find_in_cache(submission, error)
    except EntryNotFoundError as error:
        raise SubmissionError(f"{model} has no config.json", field="model") from error
    except (HfHubHTTPError, httpx2.HTTPError, OfflineModeIsEnabled, OSError, *NOT_AS_DOCUMENTED) as error:
        return _find_in_cache(submission, error)


def within(deadline_s: float, look: Look, submission: Submission) -> FoundModel:
    """Look, and give up when the deadline passes; the look itself ends in its own time.

    Raises:
        SubmissionError: as `look`, or it took too long.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="preflight")
    try:
        return pool.submit(look, submission).result(deadline_s)
    except TimeoutError as error:
        message = f"the Hub did not say within {deadline_s:.0f} s whether {submission.model} exists; try again"
        raise SubmissionError(message, field="model") from error
    finally:
        pool.shutdown(wait=False)


def _find_in_cache(submission: Submission, error: Exception) -> FoundModel:
    try:
        folder = Path(snapshot_download(submission.model, revision=submission.revision, local_files_only=True))
        sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
        _refuse_incomplete(submission.model, sizes)
        warning = "The Hub cannot be reached; this is the copy in this machine's cache."
        return FoundModel(read_config_file(folder), _weight_bytes(sizes), warning, folder)
    except (LocalEntryNotFoundError, OSError, ConfigError, SubmissionError):
        message = (
            f"the Hub cannot be reached ({_first_line(error)}), and {submission.model} is not in this machine's cache"
        )
        raise SubmissionError(message, field="model") from error


def _refuse_incomplete(model: str, sizes: Mapping[str, int]) -> None:
    if "config.json" not in sizes:
        raise SubmissionError(f"{model} has no config.json", field="model")
    if not any(name.endswith(WEIGHTS) and "/" not in name for name in sizes):
        raise SubmissionError(f"{model} has no {WEIGHTS} weights (pickles are not loaded)", field="model")
    if not any(name in sizes for name in TOKENIZERS):
        raise SubmissionError(f"{model} has no tokenizer ({', '.join(TOKENIZERS)})", field="model")


def _weight_bytes(sizes: Mapping[str, int]) -> int:
    """Bytes of what an engine loads: the same weights in another form beside it (`original/`, consolidated) are not."""
    top = {name: size for name, size in sizes.items() if name.endswith(WEIGHTS) and "/" not in name}
    return sum(size for name, size in top.items() if name.startswith("model")) or sum(top.values())


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
