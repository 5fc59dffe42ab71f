"""Number formats and which tensors of a model are stored in which."""

from moe_cap.precision.formats import WeightFormat, plain_format
from moe_cap.precision.plan import StoragePlan, StorageRule, storage_of, stored_bytes, uniform_storage

__all__ = [
    "StoragePlan",
    "StorageRule",
    "WeightFormat",
    "plain_format",
    "storage_of",
    "stored_bytes",
    "uniform_storage",
]
