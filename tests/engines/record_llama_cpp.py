"""Records a trace for tests/measure/fixtures by a real llama-server: python -m tests.engines.record_llama_cpp FILE."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from moe_cap.measure.engines.llama_cpp import TRACE, LlamaCppEngine, recording
from moe_cap.measure.engines.openai_http import OpenAiHttp
from moe_cap.measure.model_files import find_model
from moe_cap.submission import Submission
from tests.engines.conftest import SHIPPED


def record(target: Path) -> None:
    """A prompt of 20 tokens in batches so small that it is cut in both ways."""
    engine, files = LlamaCppEngine(), find_model(Submission(model=str(SHIPPED)))
    spec = engine.launch_spec(files, "fp32")
    spec = replace(spec, argv=(*spec.argv, "--batch-size", "12", "--ubatch-size", "8", "--parallel", "4"))
    tokens = [4 + (7 * i) % 90 for i in range(20)]
    with tempfile.TemporaryDirectory() as folder:
        session = engine.start(recording(spec), Path(folder) / "engine.log")
        try:
            trace = Path(session.server.fill(TRACE))
            before = len(trace.read_text())
            answer = {"model": files.name, "prompt": tokens, "max_tokens": 1}
            OpenAiHttp(session.server.url, {}).complete(answer)
            target.write_text(trace.read_text()[before:])
        finally:
            session.stop()


if __name__ == "__main__":
    record(Path(sys.argv[1]))
