"""`transformers serve --continuous-batching` on a processor: requests run together, and say what `generate` says."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from moe_cap.architecture import parse_config
from moe_cap.measure.engines.base import Request
from moe_cap.measure.engines.hf_tokenizer import HubTokenizer
from moe_cap.measure.engines.transformers_serve_continuous import TransformersServeContinuousEngine
from moe_cap.measure.join import check_rows
from moe_cap.measure.lock_step import check_lengths
from moe_cap.measure.model_files import ModelFiles
from tests.engines.server_contract import PATIENT, SAME_SETS

ENGINE = TransformersServeContinuousEngine(PATIENT)
TEXTS = ("what is 12 + 34?", "copy this: brown fox", "the largest of 3 9 4 is", "what is 50 - 21?")
OUTPUT = 12


def test_requests_run_together_and_answers_may_end_on_a_server_of_their_own(
    shipped_files: ModelFiles, tmp_path: Path
) -> None:
    tokenizer = HubTokenizer(shipped_files)
    requests = [Request(text, tuple(tokenizer.encode(text)), OUTPUT) for text in TEXTS]
    session = ENGINE.start(ENGINE.launch_spec(shipped_files, "fp32"), tmp_path / "engine.log")
    try:
        session.warm_up(requests[:2], 2)
        run = session.run(requests, len(requests))
        rows = session.route(requests[:1], run.completions[:1])
        timed = session.server
        answers = session.answer([request.prompt for request in requests], stop=["\n"], max_tokens=OUTPUT)
        assert session.server is not timed
        record = session.describe()
    finally:
        session.stop()
    check_lengths(requests, run.completions)
    check_rows(rows, parse_config(shipped_files.config))
    assert (record.name, record.version) == ("transformers-serve-continuous", ENGINE.probe().version)

    model = AutoModelForCausalLM.from_pretrained(shipped_files.folder, dtype=torch.float32)
    for request, done, answer in zip(requests, run.completions, answers, strict=True):
        prompt = torch.tensor([request.prompt])
        asked = {"attention_mask": torch.ones_like(prompt), "do_sample": False, "max_new_tokens": OUTPUT}
        said = model.generate(prompt, suppress_tokens=[tokenizer.end_token], **asked)
        assert done.tokens == tuple(said[0, prompt.shape[1] :].tolist())
        free = tokenizer.decode(model.generate(prompt, **asked)[0, prompt.shape[1] :].tolist())
        assert answer == free.split("\n")[0]

    said, forced = rows[0].predicted, run.completions[0].tokens
    assert sum(mine == theirs for mine, theirs in zip(said, forced, strict=True)) >= SAME_SETS * OUTPUT
    first_last = min(done.token_s[-1] for done in run.completions)
    assert all(done.token_s[0] < first_last for done in run.completions)
    computed = Counter[str]()
    for step in run.steps:  # none where a busy machine's arrivals do not line up
        computed.update({member.request_id: member.num_tokens for member in step.members})
    assert not run.steps or computed == {request.id: len(request.prompt) + OUTPUT - 1 for request in requests}
