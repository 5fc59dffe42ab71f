"""From an engine's name to the engine; its module is imported here and not before."""

from __future__ import annotations

import importlib

from moe_cap.errors import SubmissionError
from moe_cap.measure.engines.base import Engine
from moe_cap.offerings import ENGINES


def load_engine(name: str) -> Engine:
    """Import the module of an engine and return the engine; nothing is started.

    Raises:
        SubmissionError: no engine of this name.
    """
    offer = ENGINES.get(name)
    if offer is None:
        raise SubmissionError(f"no engine {name!r}; there are: {', '.join(ENGINES)}", field="engine")
    engine: Engine = importlib.import_module(offer.module).ENGINE
    return engine
