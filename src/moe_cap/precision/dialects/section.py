"""What every dialect needs: the checked section, the format of what is not quantised, and rules to put together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from moe_cap.architecture.config import Config
from moe_cap.architecture.weights import Part
from moe_cap.precision.formats import BF16, FP8_PLAIN, FP32, WeightFormat
from moe_cap.precision.names import ModuleNames
from moe_cap.precision.plan import LINEAR_PARTS, StoragePlan, StorageRule

LINEAR_AND_HEAD = LINEAR_PARTS | {Part.LM_HEAD}


@dataclass(frozen=True, slots=True)
class Section:
    """A `quantization_config` and the dtype of everything it leaves alone."""

    config: Config
    plain: WeightFormat

    def skipping(self, *keys: str, always: Iterable[str] = ()) -> tuple[StorageRule, ...]:
        """A rule that leaves alone the modules which a key of the section lists."""
        listed = self.config.items(*keys, kind=str) or ()
        names = (*listed, *always)
        return (StorageRule(self.plain, modules=ModuleNames(names)),) if names else ()

    def plan(
        self,
        name: str,
        rules: tuple[StorageRule, ...],
        *,
        compute_dtype: str | None = None,
        kv: WeightFormat | None = None,
    ) -> StoragePlan:
        """Put together; weight-only formats compute in the dtype of the activations, which is the plain one."""
        cache = kv or (BF16 if self.plain is FP32 else self.plain)
        return StoragePlan(name, self.plain, rules, kv=cache, compute_dtype=compute_dtype or self.plain.name)


def kv_of_bits(bits: int | None) -> WeightFormat | None:
    """The cache format that a scheme of so many bits means; None leaves the default."""
    return FP8_PLAIN if bits == 8 else None
