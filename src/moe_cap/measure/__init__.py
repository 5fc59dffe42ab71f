"""Measuring: engines, load, accuracy, power and the probe. The only room that imports torch."""
