"""A report as people write it, for the tests."""

from __future__ import annotations

from typing import Any

CITATION = {"text": "A. Person, Serving MoE", "url": "https://example.org/report", "place": "Table 2"}


def report(**changes: Any) -> dict[str, Any]:
    """The smallest whole document, changed."""
    whole: dict[str, Any] = {
        "moe_cap_report": 1,
        "citation": CITATION,
        "created_at": "2026-11-01T00:00:00Z",
        "model": {"name": "Qwen/Qwen3-30B-A3B", "model_type": "qwen3_moe"},
        "engine": {"name": "MoE-Gen"},
        "precision": "bf16",
        "hardware": {"device": "h100-sxm-80gb", "num_devices": 2},
        "points": [
            {
                "load": {"kind": "offline", "batch_size": 64, "input_tokens": 512, "output_tokens": 256},
                "quantities": {"output_tokens_per_s": 31, "power_w": {"reason": "the report has no power meter"}},
            }
        ],
    }
    return {name: value for name, value in {**whole, **changes}.items() if value is not None}
