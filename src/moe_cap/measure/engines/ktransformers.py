"""KTransformers, which is a fork of SGLang's server with experts on the processor: a launch specification, never run.

The flags are those of its documentation and of SGLang 0.5.23, which has them too. That the fork returns routed experts
as SGLang does is assumed and was never seen; a run in which it does not fails, and publishes nothing.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from moe_cap.measure.engines.base import LaunchSpec
from moe_cap.measure.engines.launched import package_version
from moe_cap.measure.engines.sglang import SglangEngine
from moe_cap.measure.model_files import ModelFiles


class KTransformersEngine(SglangEngine):
    """All routed experts on the processor, in the checkpoint's bf16."""

    name = "ktransformers"

    def version_in(self, home: Path) -> str | None:
        """Of its fork of SGLang."""
        return package_version(home, "sglang-kt")

    def launch_spec(self, files: ModelFiles, precision: str) -> LaunchSpec:
        """SGLang's server with the experts' weights read from the same folder."""
        spec = super().launch_spec(files, precision)
        experts = ("--kt-weight-path", str(files.folder), "--kt-method", "BF16", "--kt-num-gpu-experts", "0")
        return replace(spec, argv=(*spec.argv, *experts))


ENGINE = KTransformersEngine()
