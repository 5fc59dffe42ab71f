"""The queue keeps its contract on every store."""

from collections.abc import Callable
from pathlib import Path

import pytest

from moe_cap.store import FolderStore, HubStore, MemoryStore

from .contract import Open, QueueContract


class TestQueueInMemory(QueueContract):
    @pytest.fixture
    def open_again(self) -> Open:
        store = MemoryStore()
        return lambda: store


class TestQueueInFolder(QueueContract):
    @pytest.fixture
    def open_again(self, tmp_path: Path) -> Open:
        return lambda: FolderStore(tmp_path / "queue")


class TestQueueOnHub(QueueContract):
    @pytest.fixture
    def open_again(self, hub_stores: Callable[[], HubStore]) -> Open:
        return hub_stores
