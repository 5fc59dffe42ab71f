"""SGLang on a processor, with stubs for its kernels, whose only published build needs CUDA.

Its server, scheduler, interface and recorder are the real ones; its matrix products go through plain torch.
"""

from __future__ import annotations

from dataclasses import replace

from moe_cap.measure.engines.base import LaunchSpec
from moe_cap.measure.engines.sglang import SglangEngine
from moe_cap.measure.model_files import ModelFiles
from tests.engines.server_contract import PATIENT, ServerContract

ON_A_PROCESSOR = (
    "--device", "cpu", "--attention-backend", "torch_native", "--disable-overlap-schedule",
    "--max-total-tokens", "4096", "--max-running-requests", "8", "--mem-fraction-static", "0.2",
)  # fmt: skip


class SglangOnAProcessor(SglangEngine):
    """With what the stubs leave possible."""

    def launch_spec(self, files: ModelFiles, precision: str) -> LaunchSpec:
        spec = super().launch_spec(files, precision)
        environment = {**spec.environment, "SGLANG_USE_CPU_ENGINE": "1"}
        return replace(spec, argv=(*spec.argv, *ON_A_PROCESSOR), environment=environment)


class TestSglang(ServerContract):
    engine = SglangOnAProcessor(PATIENT)
