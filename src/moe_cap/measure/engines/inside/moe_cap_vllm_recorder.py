"""Runs inside vLLM: a worker class that writes down every forward pass, its members and their experts.

For processors, where vLLM's own `--enable-return-routed-experts` is refused (it needs a model runner that needs
Triton). `--worker-cls` and `BaseRouter.set_capture_fn` are vLLM's own extension points; the function is bound before
anything is compiled, exactly where vLLM binds its own recorder. Only the standard library, torch and vLLM are here.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import torch
from vllm.model_executor.layers.fused_moe.layer import MoERunner
from vllm.v1.worker.cpu_worker import CPUWorker

TRACE = "MOE_CAP_TRACE"
"""Variable that names the file; `moe_cap.measure.engines.vllm_routing` reads it."""


class RecordingWorker(CPUWorker):  # type: ignore[misc]  # vLLM is untyped here
    """One line of JSON per forward pass: members as [request, first position, tokens], ids as raw int16."""

    def load_model(self, **named: Any) -> None:
        """Load, then give every router a place to put its choices."""
        super().load_model(**named)
        runners = [module for module in self.get_model().modules() if isinstance(module, MoERunner)]
        runners.sort(key=lambda runner: runner.layer_id)
        tokens = self.vllm_config.scheduler_config.max_num_batched_tokens
        top_k = self.vllm_config.model_config.get_num_experts_per_tok()
        self._ids = torch.full((len(runners), tokens, top_k), -1, dtype=torch.int16)
        for row, runner in zip(self._ids, runners, strict=True):
            runner.router.set_capture_fn(lambda chosen, row=row: row[: chosen.shape[0]].copy_(chosen))
        self._trace = Path(os.environ[TRACE]).open("a", encoding="utf-8", buffering=1)  # noqa: SIM115 as long as vLLM lives

    def execute_model(self, scheduled: Any, *rest: Any, **named: Any) -> Any:
        """Run the pass, then write it down; vLLM's own start-up passes have no request and leave no line."""
        output = super().execute_model(scheduled, *rest, **named)
        if scheduled.total_num_scheduled_tokens:
            self._write(scheduled.num_scheduled_tokens)
        return output

    def _write(self, tokens: dict[str, int]) -> None:
        batch = self.model_runner.input_batch
        members = [
            [request, int(batch.num_computed_tokens_cpu[index]), tokens[request]]
            for index, request in enumerate(batch.req_ids)
            if request in tokens
        ]
        ids = self._ids[:, : sum(tokens.values())].transpose(0, 1).contiguous()
        line = {
            "members": members,
            "shape": list(ids.shape),
            "ids": base64.b64encode(ids.numpy().tobytes()).decode("ascii"),
        }
        self._trace.write(json.dumps(line, separators=(",", ":")) + "\n")
        self._ids.fill_(-1)
