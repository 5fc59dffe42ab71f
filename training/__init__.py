"""Trains the small mixture-of-experts model that this repository ships: `python -m training.train`."""
