"""Where records live: one small interface over a folder, a dataset repository of the Hub, or memory."""

from pathlib import Path

from moe_cap.store.base import Store
from moe_cap.store.folder import FolderStore
from moe_cap.store.hub import HubStore
from moe_cap.store.memory import MemoryStore
from moe_cap.store.transact import Change, transact, view

__all__ = ["Change", "FolderStore", "HubStore", "MemoryStore", "Store", "open_store", "transact", "view"]


def open_store(spec: str | Path, *, token: str | None = None) -> Store:
    """Open the store that a setting names.

    Args:
        spec: `hub://namespace/name` for a dataset repository, anything else is a folder.
        token: of the Hub; None takes the login of this machine.

    Raises:
        InvalidInputError: a `hub://` spec without a namespace and a name.
    """
    text = str(spec)
    if text.startswith("hub://"):
        return HubStore(text.removeprefix("hub://"), token=token)
    return FolderStore(Path(text).expanduser())
