"""SGLang where there is no GPU: the stock server with stubs for its CUDA-only kernels (`tests/engines/sglang_stubs`).

Its server, scheduler, interface and recorder are the real ones; its matrix products go through plain torch, so that its
times are nobody's but those of this arrangement.
"""

from __future__ import annotations

from dataclasses import replace

from moe_cap.measure.engines.base import LaunchSpec
from moe_cap.measure.engines.sglang import SglangEngine
from moe_cap.measure.model_files import ModelFiles

ARGUMENTS = (
    "--device", "cpu", "--attention-backend", "torch_native", "--disable-overlap-schedule",
    "--max-total-tokens", "4096", "--max-running-requests", "8", "--mem-fraction-static", "0.2",
)  # fmt: skip


class SglangOnAProcessor(SglangEngine):
    """With what the stubs leave possible."""

    def launch_spec(self, files: ModelFiles, precision: str) -> LaunchSpec:
        """The engine's own, and what takes it to a processor."""
        spec = super().launch_spec(files, precision)
        environment = {**spec.environment, "SGLANG_USE_CPU_ENGINE": "1"}
        return replace(spec, argv=(*spec.argv, *ARGUMENTS), environment=environment)
