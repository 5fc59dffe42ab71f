"""Imported by SGLang for models that see; none of the tested ones does."""

from moe_cap_stub import stub

__version__ = "0.28.0"
__getattr__ = stub("torchvision")
