"""`transformers serve` as people run it, on a processor: it takes text, so prompts here are text."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from moe_cap.architecture import parse_config
from moe_cap.errors import InvalidRunError
from moe_cap.measure.engines.base import Request
from moe_cap.measure.engines.hf_tokenizer import HubTokenizer
from moe_cap.measure.engines.transformers_serve import TransformersServeEngine
from moe_cap.measure.join import check_rows
from moe_cap.measure.lock_step import check_lengths
from moe_cap.measure.model_files import ModelFiles
from tests.engines.server_contract import PATIENT, SAME_SETS

ENGINE = TransformersServeEngine(PATIENT)
TEXTS = ("what is 12 + 34?", "copy this: brown fox", "the largest of 3 9 4 is")
OUTPUT = 8


def test_tokens_are_those_of_generate_and_every_one_has_a_time_and_a_row(
    shipped_files: ModelFiles, tmp_path: Path
) -> None:
    tokenizer = HubTokenizer(shipped_files)
    requests = [Request(text, tuple(tokenizer.encode(text)), OUTPUT) for text in TEXTS]
    session = ENGINE.start(ENGINE.launch_spec(shipped_files, "fp32"), tmp_path / "engine.log")
    try:
        run = session.run(requests, 2)
        rows = session.route(requests[:1], run.completions[:1])
        (answer,) = session.answer([requests[0].prompt], stop=["\n"], max_tokens=6)
        record = session.describe()
        with pytest.raises(InvalidRunError, match="takes text"):
            session.run([Request("no text", (3, 3, 127), 2)], 1)
    finally:
        session.stop()
    check_lengths(requests, run.completions)
    model = AutoModelForCausalLM.from_pretrained(shipped_files.folder, dtype=torch.float32)
    for request, done in zip(requests, run.completions, strict=True):
        prompt = torch.tensor([request.prompt])
        said = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=OUTPUT,
            suppress_tokens=[tokenizer.end_token],
        )  # fmt: skip
        assert done.tokens == tuple(said[0, prompt.shape[1] :].tolist())
    check_rows(rows, parse_config(shipped_files.config))
    assert len(rows[0].experts) == len(requests[0].prompt) + OUTPUT - 1
    said, forced = rows[0].predicted, run.completions[0].tokens
    assert sum(mine == theirs for mine, theirs in zip(said, forced, strict=True)) >= SAME_SETS * OUTPUT
    assert "\n" not in answer
    assert (record.name, record.version) == ("transformers-serve", ENGINE.probe().version)
    assert (record.compute_dtype, record.kv_dtype) == ("fp32", "fp32")
    assert record.arguments["routing_pass"] == "transformers, in fp32"
