"""TensorRT-LLM by its own OpenAI server: a launch specification, never run by this project.

It needs NVIDIA's package index and a GPU. Written after the documentation of `trtllm-serve` (1.2): the model stands as
a position argument, `--backend pytorch` loads a Hugging Face checkpoint in its own dtype. Routing would be replayed by
transformers; its own (`EXPERT_STATISTIC_ITER_RANGE`) turns CUDA graphs off.
"""

from __future__ import annotations

from pathlib import Path

from moe_cap.measure.engines.base import LaunchSpec
from moe_cap.measure.engines.launched import ServerEngine, package_version
from moe_cap.measure.engines.server import HOME, PORT
from moe_cap.measure.model_files import ModelFiles


class TensorRtLlmEngine(ServerEngine):
    """The engine as a description; see `moe_cap.measure.engines.base.Engine`."""

    name = "tensorrt-llm"

    def version_in(self, home: Path) -> str | None:
        """Of its package."""
        return package_version(home, "tensorrt-llm", "tensorrt_llm")

    def launch_spec(self, files: ModelFiles, precision: str) -> LaunchSpec:
        """Its server with the backend that takes a checkpoint as it is."""
        self.check_precision(precision)
        argv = (
            f"{HOME}/bin/trtllm-serve", "serve", str(files.folder), "--backend", "pytorch",
            "--host", "127.0.0.1", "--port", PORT,
        )  # fmt: skip
        return LaunchSpec(files=files, precision=precision, argv=argv, ready_url=f"http://127.0.0.1:{PORT}/health")

    def served_name(self, spec: LaunchSpec) -> str | None:
        """It names the model after its folder, in a way that was never seen here."""
        return None


ENGINE = TensorRtLlmEngine()
