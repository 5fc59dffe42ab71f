"""MoE-CAP: cost, accuracy and performance of Mixture-of-Experts serving systems."""

__version__ = "0.1.0"
