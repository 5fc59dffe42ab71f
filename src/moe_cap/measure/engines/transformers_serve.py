"""`transformers serve`, the library's own OpenAI server, with the transformers that is installed here.

It takes prompts as text, refuses fields that it does not know, and answers one request at a time by `generate` (its
continuous batching is `transformers-serve-continuous`). It names no tokens and streams no special ones, so timed
answers forbid the end token, and what was said is read from the text. Experts are replayed in process.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from moe_cap.errors import InvalidRunError
from moe_cap.measure.engines.arrivals import ByArrivals
from moe_cap.measure.engines.base import LaunchSpec, Request
from moe_cap.measure.engines.dialect import Dialect
from moe_cap.measure.engines.dtypes import DTYPES
from moe_cap.measure.engines.endpoint_session import Attachment
from moe_cap.measure.engines.fingerprints import NOBODY
from moe_cap.measure.engines.launched import ServerEngine, ServerSession, threads_beside_the_client
from moe_cap.measure.engines.openai_http import OpenAiHttp, ServedModel
from moe_cap.measure.engines.server import HOME, PORT, Server
from moe_cap.measure.engines.transformers_session import before_stop
from moe_cap.measure.engines.watched import Unwatched, Watching
from moe_cap.measure.load import Limits, Prompt, Target
from moe_cap.measure.model_files import ModelFiles
from moe_cap.result import EngineRecord

PACKAGES = "packages"
"""Folder below the engine's environment for what the server needs and a worker does not have (openai)."""
SHARED = "its passes are shared: profile --engine transformers-serve-continuous knows how many tokens one takes"
TEXT = Dialect("text, final usage only", running_usage=False, extra={})


class TransformersServeEngine(ServerEngine):
    """The engine as a description; see `moe_cap.measure.engines.base.Engine`."""

    name = "transformers-serve"

    def version_in(self, home: Path) -> str | None:
        """Of the transformers of this process, which is what runs."""
        has_client = (home / PACKAGES / "openai").is_dir() or importlib.util.find_spec("openai") is not None
        return version("transformers") if has_client else None

    def launch_spec(self, files: ModelFiles, precision: str) -> LaunchSpec:
        """The model is the one that it is started with; no other is loaded on request."""
        self.check_precision(precision)
        threads = threads_beside_the_client()
        argv = (
            sys.executable, "-m", "transformers.cli.transformers", "serve", str(files.folder),
            "--dtype", DTYPES[precision], "--host", "127.0.0.1", "--port", PORT,
        )  # fmt: skip
        return LaunchSpec(
            files=files,
            precision=precision,
            options={"threads": threads},
            argv=argv,
            environment={"PYTHONPATH": f"{HOME}/{PACKAGES}", "OMP_NUM_THREADS": str(threads)},
            ready_url=f"http://127.0.0.1:{PORT}/health",
        )

    def _attach(self, spec: LaunchSpec, server: Server) -> ServerSession:
        """Its list of models wants the Hub, and it refuses the fields by which other servers are sounded out."""
        tokenizer = self._read_tokenizer(spec.files)
        served = ServedModel(str(spec.files.folder), None)
        unending = {"generation_config": json.dumps({"suppress_tokens": [tokenizer.end_token]})}
        target = Target(server.url, served.name, running_usage=False, unending=unending)
        http = OpenAiHttp(server.url, {})
        attachment = Attachment(http, NOBODY, served, tokenizer, target, TEXT, Limits(), self._rules)
        return self.session(spec, server, attachment)

    def session(self, spec: LaunchSpec, server: Server, attachment: Attachment) -> TransformersServeSession:
        """The session over a server that takes text."""
        return TransformersServeSession(self, spec, server, attachment)


class TransformersServeSession(ServerSession):
    """A running `transformers serve`; see `moe_cap.measure.engines.base.Session`."""

    def describe(self) -> EngineRecord:
        """What it was started with: it tells nothing of itself, and keeps its cache in the dtype of the weights."""
        record, precision = super().describe(), self._spec.precision
        given = {"command": list(self._spec.argv), **self._spec.options}
        return record.model_copy(
            update={
                "arguments": {**record.arguments, **given},
                "kv_dtype": precision,
                "compute_dtype": precision,
            }
        )

    def watch(self) -> Watching:
        """Its passes are read off the arrivals; prompts are never cut here."""
        return Unwatched(SHARED) if "--continuous-batching" in self._spec.argv else ByArrivals(float("inf"))

    def _forbidden_tokens(self) -> tuple[int, ...]:
        """The end token, by `suppress_tokens` of every timed request."""
        return (self._tokenizer.end_token,)

    def _prompt_of(self, request: Request) -> Prompt:
        text = self._tokenizer.decode(request.prompt, special_tokens=True)
        if tuple(self._tokenizer.encode(text)) != request.prompt:
            raise InvalidRunError(
                f"the prompt of request {request.id} is no text of {len(request.prompt)} tokens; this server takes text"
            )
        return Prompt(text, request.output_tokens, len(request.prompt))

    def answer(self, prompts: Sequence[Sequence[int]], *, stop: Sequence[str], max_tokens: int) -> list[str]:
        """Greedy, until the end token, all at once; cut at a stop text afterwards."""
        texts = [self._tokenizer.decode(prompt, special_tokens=True) for prompt in prompts]
        return [before_stop(text, stop) for text in self._answers([Prompt(text, max_tokens) for text in texts], {})]


ENGINE = TransformersServeEngine()
