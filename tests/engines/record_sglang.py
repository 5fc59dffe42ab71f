"""Record the fixtures of test_sglang_engine.py from a real SGLang: `python -m tests.engines.record_sglang URL`.

The server holds the shipped model in fp32 and was started with --enable-return-routed-experts.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from moe_cap.measure.engines.base import Request
from moe_cap.measure.engines.openai_http import OpenAiHttp
from moe_cap.measure.engines.registry import load_engine
from moe_cap.measure.engines.sglang import generate_body
from moe_cap.measure.engines.teacher_forcing import forced_tokens
from moe_cap.measure.model_files import find_model
from moe_cap.submission import Submission
from tests.engines.conftest import SHIPPED

FIXTURE = Path(__file__).parents[1] / "measure" / "fixtures" / "sglang-0.5.23-cpu.json"
TOLD = (
    "version",
    "dtype",
    "kv_cache_dtype",
    "tp_size",
    "ep_size",
    "dp_size",
    "pp_size",
    "device",
    "disable_radix_cache",
)


def main(url: str) -> None:
    files = find_model(Submission(model=str(SHIPPED)))
    reference = load_engine("transformers")
    by = reference.start(reference.launch_spec(files, "fp32"), Path(tempfile.mkdtemp()) / "reference.log")
    request = Request("r", tuple((5 * j) % 120 + 3 for j in range(12)), 5)
    (done,) = by.run([request], 1).completions
    (rows,) = by.route([request], [done])
    http = OpenAiHttp(url, {})
    tokens = forced_tokens(request, done)
    body = generate_body(tokens, len(request.prompt))
    about = http.about()
    record = {
        "config": files.config,
        "prompt": request.prompt,
        "output": done.tokens,
        "tokens": tokens,
        "body": body,
        "answer": http.post("/generate", body),
        "server_info": {name: about.arguments[name] for name in TOLD},
        "transformers_experts": rows.experts.tolist(),
    }
    FIXTURE.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
