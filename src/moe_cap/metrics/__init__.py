"""Formulas: pure functions of architectures, steps and peaks. No IO, no clock, no torch."""
