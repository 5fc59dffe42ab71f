"""Every store keeps the contract."""

from collections.abc import Callable
from pathlib import Path

import pytest

from moe_cap.store import FolderStore, HubStore, MemoryStore
from tests.hub.app import Server
from tests.hub.fixtures import Remote

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


class TestHubStoreThatIsNotMadeYet(StoreContract):
    @pytest.fixture
    def open_again(self, hub: Server, remote: Remote, tmp_path: Path) -> Open:
        name, blobs = remote.new_name("unmade"), tmp_path / "blobs"
        return lambda: HubStore(name, token="hf_alice", endpoint=hub.url, cache_folder=blobs, heartbeat_s=2.0)
