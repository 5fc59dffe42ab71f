"""MoE-CAP: cost, accuracy and performance of Mixture-of-Experts serving systems.

The library's names can be imported from here (docs/library.md); a name loads its module when it is first asked for, so
`import moe_cap` itself loads nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moe_cap.architecture import Architecture, Parameters, parse_config, read_config
    from moe_cap.errors import MoECapError
    from moe_cap.hardware import Device, all_devices, detect_machine, find_device, find_region, probed_device
    from moe_cap.metrics.bytes_and_flops import (
        step_bytes,
        step_bytes_all_experts,
        step_bytes_paper,
        step_flops,
        step_flops_all_experts,
        step_flops_paper,
    )
    from moe_cap.metrics.cap import classify, radar_axes
    from moe_cap.metrics.cost import Basis, owner_cost, paper_cost, rental_cost
    from moe_cap.metrics.latency import RequestTiming, measurement_window, summary, throughput
    from moe_cap.metrics.parallelism import Parallelism
    from moe_cap.metrics.utilisation import Utilisation, mbu, mfu, s_mbu, s_mbu_paper, s_mfu, s_mfu_paper
    from moe_cap.planner import deployment_chart, feasible, requirement
    from moe_cap.precision import StoragePlan, parse_quantization, storage_of, stored_bytes, uniform_storage
    from moe_cap.routing import (
        Step,
        activated_experts,
        check_routing,
        decode_step,
        encoder_step,
        prefill_step,
        with_all_experts,
        with_skewed_routing,
        with_uniform_routing,
    )

__version__ = "0.1.0"

_HOMES = {
    "architecture": "Architecture Parameters parse_config read_config",
    "errors": "MoECapError",
    "hardware": "Device all_devices detect_machine find_device find_region probed_device",
    "metrics.bytes_and_flops": "step_bytes step_bytes_all_experts step_bytes_paper "
    "step_flops step_flops_all_experts step_flops_paper",
    "metrics.cap": "classify radar_axes",
    "metrics.cost": "Basis owner_cost paper_cost rental_cost",
    "metrics.latency": "RequestTiming measurement_window summary throughput",
    "metrics.parallelism": "Parallelism",
    "metrics.utilisation": "Utilisation mbu mfu s_mbu s_mbu_paper s_mfu s_mfu_paper",
    "planner": "deployment_chart feasible requirement",
    "precision": "StoragePlan parse_quantization storage_of stored_bytes uniform_storage",
    "routing": "Step activated_experts check_routing decode_step encoder_step prefill_step "
    "with_all_experts with_skewed_routing with_uniform_routing",
}
_MODULE_OF = {name: f"moe_cap.{module}" for module, names in _HOMES.items() for name in names.split()}

__all__ = [
    "Architecture",
    "Basis",
    "Device",
    "MoECapError",
    "Parallelism",
    "Parameters",
    "RequestTiming",
    "Step",
    "StoragePlan",
    "Utilisation",
    "activated_experts",
    "all_devices",
    "check_routing",
    "classify",
    "decode_step",
    "deployment_chart",
    "detect_machine",
    "encoder_step",
    "feasible",
    "find_device",
    "find_region",
    "mbu",
    "measurement_window",
    "mfu",
    "owner_cost",
    "paper_cost",
    "parse_config",
    "parse_quantization",
    "prefill_step",
    "probed_device",
    "radar_axes",
    "read_config",
    "rental_cost",
    "requirement",
    "s_mbu",
    "s_mbu_paper",
    "s_mfu",
    "s_mfu_paper",
    "step_bytes",
    "step_bytes_all_experts",
    "step_bytes_paper",
    "step_flops",
    "step_flops_all_experts",
    "step_flops_paper",
    "storage_of",
    "stored_bytes",
    "summary",
    "throughput",
    "uniform_storage",
    "with_all_experts",
    "with_skewed_routing",
    "with_uniform_routing",
]


def __getattr__(name: str) -> object:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'moe_cap' has no attribute {name!r}")
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
