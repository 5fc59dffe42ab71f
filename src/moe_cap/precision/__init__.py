"""Number formats and which tensors of a model are stored in which."""

from moe_cap.precision.checkpoint import Checkpoint, read_checkpoint, read_weight_bytes
from moe_cap.precision.formats import WeightFormat, plain_format
from moe_cap.precision.plan import StoragePlan, StorageRule, storage_of, stored_bytes, uniform_storage
from moe_cap.precision.quantization import (
    parse_hf_quant_config,
    parse_quantization,
    read_quantization,
    refuse_conversion,
)

__all__ = [
    "Checkpoint",
    "StoragePlan",
    "StorageRule",
    "WeightFormat",
    "parse_hf_quant_config",
    "parse_quantization",
    "plain_format",
    "read_checkpoint",
    "read_quantization",
    "read_weight_bytes",
    "refuse_conversion",
    "storage_of",
    "stored_bytes",
    "uniform_storage",
]
