"""Architectures: config.json in, exact structure out."""

from moe_cap.architecture.feed_forward import DenseFfn, MoeFfn
from moe_cap.architecture.mixers import Attention, LatentAttention, Mixer
from moe_cap.architecture.model import Architecture, Layer, Parameters
from moe_cap.architecture.registry import FAMILIES, parse_config, read_config
from moe_cap.architecture.weights import Part, Weight

__all__ = [
    "FAMILIES",
    "Architecture",
    "Attention",
    "DenseFfn",
    "LatentAttention",
    "Layer",
    "Mixer",
    "MoeFfn",
    "Parameters",
    "Part",
    "Weight",
    "parse_config",
    "read_config",
]
