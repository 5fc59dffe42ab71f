"""What can be said about a submission within seconds, before anything is stored or loaded."""

from moe_cap.preflight.check import Preflight, Problem, check
from moe_cap.preflight.duration import Peaks

__all__ = ["Peaks", "Preflight", "Problem", "check"]
