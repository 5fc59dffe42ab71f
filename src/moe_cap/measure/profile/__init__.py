"""`moe-cap profile`: people's own deployments through the pipeline of every other result (docs/profile.md).

The rooms: `config` (what is asked, from YAML and options), `grid` (cells of a sweep), `system` (the model and the
engine of a cell), `run` (cell after cell, with resume), `report` and `plots` (what is made of the results).
"""
