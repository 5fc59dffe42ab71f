"""The queue and the results that the environment names."""

from __future__ import annotations

import os

from moe_cap.queue import Queue
from moe_cap.results import ResultStore
from moe_cap.settings import Settings, read_settings
from moe_cap.store import open_store


def settings_here() -> Settings:
    """The settings of this process."""
    return read_settings(os.environ)


def open_queue(settings: Settings) -> Queue:
    """The queue of `settings`."""
    store = open_store(settings.queue, token=settings.hf_token)
    return Queue(store, lease_s=settings.lease_s, max_attempts=settings.max_attempts)


def open_results(settings: Settings) -> ResultStore:
    """The results of `settings`."""
    return ResultStore(open_store(settings.results, token=settings.hf_token))
