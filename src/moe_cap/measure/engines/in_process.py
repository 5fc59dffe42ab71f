"""Engines that run transformers in this process: one description, filled in by each of them.

An engine of this kind differs from its sisters in three things: what it is told (`options`), how the weights come into
memory (`load`), and how tokens are generated (`session`).
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from pydantic import JsonValue
from transformers import PreTrainedModel

from moe_cap.errors import EngineStartError, MoECapError, SubmissionError
from moe_cap.measure.engines import quantise
from moe_cap.measure.engines.base import Capabilities, LaunchSpec
from moe_cap.measure.engines.hf_tokenizer import HubTokenizer
from moe_cap.measure.engines.transformers_session import TransformersSession
from moe_cap.measure.memory import memory_errors, refuse_what_does_not_fit
from moe_cap.measure.model_files import ModelFiles
from moe_cap.offerings import ENGINES
from moe_cap.routing import RoutingSource


def torch_threads() -> int:
    """All processors that this process may use but one, and no more than OMP_NUM_THREADS.

    torch's threads wait by spinning: with one thread more than free processors a step takes ten times as long, and the
    worker's heartbeat has to run somewhere.
    """
    return max(1, min(int(torch.get_num_threads()), len(os.sched_getaffinity(0)) - 1))


def load_whole(spec: LaunchSpec) -> PreTrainedModel:
    """All weights on the one device.

    Raises:
        OutOfMemoryError: they do not fit.
    """
    device = str(spec.options["device"])
    refuse_what_does_not_fit(spec.files, spec.precision, device)
    return quantise.load_model(spec.files.folder, spec.precision, device=device)


@dataclass(frozen=True, slots=True)
class InProcessEngine:
    """The engine as a description; see `moe_cap.measure.engines.base.Engine`.

    Attributes:
        options: what the engine is told on this machine; `device` and `threads` are among it.
        load: brings the weights into memory.
        session: generates.
        routing: how the session learns where tokens went.
        packages: that must be there.
    """

    name: str
    options: Callable[[], Mapping[str, JsonValue]]
    session: type[TransformersSession] = TransformersSession
    load: Callable[[LaunchSpec], PreTrainedModel] = load_whole
    routing: RoutingSource = RoutingSource.LOCK_STEP
    packages: tuple[str, ...] = ("torch", "transformers", "torchao")

    def probe(self) -> Capabilities:
        """Whether the packages are there."""
        missing = [name for name in self.packages if importlib.util.find_spec(name) is None]
        return Capabilities(
            installed=not missing,
            reason=f"not installed: {', '.join(missing)}" if missing else None,
            version=None if "transformers" in missing else version("transformers"),
            routing=self.routing,
        )

    def launch_spec(self, files: ModelFiles, precision: str) -> LaunchSpec:
        """The options of this machine."""
        if precision not in ENGINES[self.name].precisions:
            known = ", ".join(ENGINES[self.name].precisions)
            raise SubmissionError(f"{self.name} has no precision {precision!r}; there are: {known}", field="precision")
        return LaunchSpec(files=files, precision=precision, options=self.options())

    def start(self, spec: LaunchSpec, log: Path) -> TransformersSession:
        """Load the model into this process."""
        torch.set_num_threads(int(str(spec.options["threads"])))
        with _library_log(log), memory_errors(f"loading {spec.files.name}"):
            try:
                model = self.load(spec)
                tokenizer = HubTokenizer(spec.files)
            except (MoECapError, MemoryError, torch.OutOfMemoryError):
                raise
            except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
                if "allocate" in str(error):
                    raise
                raise EngineStartError(f"{self.name} could not load {spec.files.name}: {error}") from error
        return self.session(self.name, model, tokenizer, spec)


@contextlib.contextmanager
def _library_log(path: Path) -> Iterator[None]:
    """What transformers has to say while it loads goes to the log file."""
    logger = logging.getLogger("transformers")
    handler = logging.FileHandler(path)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
