"""Record the fixtures of test_vllm_engine.py from a real vLLM: `python -m tests.engines.record_vllm`."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from moe_cap.measure.engines.base import Completion, Request
from moe_cap.measure.engines.openai_http import OpenAiHttp
from moe_cap.measure.engines.registry import load_engine
from moe_cap.measure.engines.teacher_forcing import forced_body, forced_tokens
from moe_cap.measure.engines.vllm import ENGINE, TRACE, RecordingWorker
from moe_cap.measure.model_files import find_model
from moe_cap.submission import Submission
from tests.engines.conftest import SHIPPED

FIXTURE = Path(__file__).parents[1] / "measure" / "fixtures" / "vllm-0.32-cpu.json"


def main() -> None:
    files = find_model(Submission(model=str(SHIPPED)))
    reference = load_engine("transformers")
    by = reference.start(reference.launch_spec(files, "fp32"), Path(tempfile.mkdtemp()) / "reference.log")
    request = Request("r", tuple((5 * j) % 120 + 3 for j in range(12)), 5)
    (done,) = by.run([request], 1).completions
    (rows,) = by.route([request], [done])
    server = ENGINE.launch(
        RecordingWorker().spec(ENGINE.launch_spec(files, "fp32")), Path(tempfile.mkdtemp()) / "engine.log"
    )
    try:
        tokens = forced_tokens(request, Completion("r", done.tokens, 0.0, (), 0.0))
        body = forced_body(files.name, tokens)
        answer = OpenAiHttp(server.url, {}).complete(body)
        trace = Path(server.fill(TRACE)).read_text(encoding="utf-8").splitlines()
    finally:
        server.stop()
    record = {
        "config": files.config,
        "prompt": request.prompt,
        "output": done.tokens,
        "tokens": tokens,
        "body": body,
        "answer": answer,
        "trace": trace,
        "transformers_experts": rows.experts.tolist(),
    }
    FIXTURE.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
