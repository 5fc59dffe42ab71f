"""Fixtures around the Hub double; a plugin of the whole test suite (tests/conftest.py)."""

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import HfApi, constants

from moe_cap.store import HubStore

from .app import Server

LARGE_FILE_WARNING = "ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning"
"""The client's own upload of large files, without Xet, warns about itself."""

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Remote:
    """A Hub to talk to: the double, or the real one where a person gives the four variables below."""

    endpoint: str
    token: str
    other_token: str
    namespace: str

    @property
    def api(self) -> HfApi:
        return HfApi(endpoint=self.endpoint, token=self.token)

    def new_name(self, what: str) -> str:
        return f"{self.namespace}/{what}-{os.getpid()}-{next(_numbers)}"


@pytest.fixture(scope="session")
def hub_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the real client away from this machine's login, caches and the Xet protocol."""
    home = tmp_path_factory.mktemp("hf-home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        patch.setattr(constants, "HF_ASSETS_CACHE", str(home / "assets"))
        patch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.delenv("HF_TOKEN", raising=False)
        huggingface_hub.utils.disable_progress_bars()
        yield
        huggingface_hub.utils.enable_progress_bars()


@pytest.fixture(scope="session")
def hub_server(hub_client: None) -> Iterator[Server]:
    with Server() as server:
        server.hub.add_user("alice", "hf_alice", orgs=["lab"])
        server.hub.add_user("bob", "hf_bob", role="read")
        yield server


@pytest.fixture
def hub(hub_server: Server) -> Iterator[Server]:
    """The double without faults and with an empty log."""
    hub_server.log.clear()
    yield hub_server
    hub_server.faults.waiting.clear()
    hub_server.faults.stale_heads, hub_server.faults.commit_s, hub_server.faults.answer_s = 0, 0.0, 0.0


@pytest.fixture
def hub_stores(hub: Server, tmp_path: Path) -> Callable[[], HubStore]:
    """Each call opens the same fresh repository once more, as another process would."""
    name = f"lab/store-{next(_numbers)}"
    HfApi(endpoint=hub.url, token="hf_alice").create_repo(name, repo_type="dataset")
    return lambda: HubStore(name, token="hf_alice", endpoint=hub.url, cache_folder=tmp_path / "blobs", heartbeat_s=2.0)


@pytest.fixture(scope="session")
def remote(hub_server: Server) -> Remote:
    endpoint = os.environ.get("HUB_CONFORMANCE_ENDPOINT")
    if endpoint is None:
        return Remote(hub_server.url, "hf_alice", "hf_bob", "lab")
    given = [os.environ[f"HUB_CONFORMANCE_{name}"] for name in ("TOKEN", "OTHER_TOKEN", "NAMESPACE")]
    return Remote(endpoint, *given)


@pytest.fixture(scope="module")
def repo(remote: Remote) -> Iterator[dict[str, str]]:
    """A dataset repository for the tests of one file, as keyword arguments of the client."""
    name = remote.new_name("conformance")
    remote.api.create_repo(name, repo_type="dataset")
    yield {"repo_id": name, "repo_type": "dataset"}
    remote.api.delete_repo(name, repo_type="dataset")
