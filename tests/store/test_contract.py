"""Every store keeps the contract."""

from collections.abc import Callable
from pathlib import Path

import pytest

from moe_cap.store import FolderStore, HubStore, MemoryStore

from .contract import Open, StoreContract


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def open_again(self) -> Open:
        store = MemoryStore()
        return lambda: store


class TestFolderStore(StoreContract):
    @pytest.fixture
    def open_again(self, tmp_path: Path) -> Open:
        return lambda: FolderStore(tmp_path / "store")


class TestHubStore(StoreContract):
    @pytest.fixture
    def open_again(self, hub_stores: Callable[[], HubStore]) -> Open:
        return hub_stores
