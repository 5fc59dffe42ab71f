"""One request to the double: who asks, which repository, what was sent."""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import unquote

from starlette.requests import Request

from .double import Hub, HubError, Repo, User
from .faults import Faults

KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}


@dataclass
class Exchange:
    hub: Hub
    faults: Faults
    request: Request
    body: bytes

    def param(self, name: str, default: str = "") -> str:
        return unquote(self.request.path_params.get(name, default))

    def flag(self, name: str) -> bool:
        return self.request.query_params.get(name, "").lower() in ("1", "true")

    def json(self) -> Any:
        return json.loads(self.body or b"{}")

    @property
    def base_url(self) -> str:
        return str(self.request.base_url).rstrip("/")

    @cached_property
    def user(self) -> User | None:
        token = self.request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if not token:
            return None
        if token not in self.hub.users:
            raise HubError(401, "Invalid credentials in Authorization header")
        return self.hub.users[token]

    @property
    def login(self) -> User:
        if self.user is None:
            raise HubError(401, "Invalid username or password.")
        return self.user

    @property
    def kind(self) -> str:
        return KINDS[self.request.path_params.get("kind", "models")]

    @cached_property
    def repo(self) -> Repo:
        return self.hub.find(self.kind, f"{self.param('ns')}/{self.param('name')}", self.user)

    @property
    def own_repo(self) -> Repo:
        """The repository, for somebody who may write to it."""
        login, repo = self.login, self.repo
        if login.role != "write" or not login.owns(repo.namespace):
            raise HubError(403, "Forbidden: you don't have write access")
        return repo

    def page_of(self, repo: Repo) -> str:
        return f"{self.base_url}/{'' if repo.kind == 'model' else repo.kind + 's/'}{repo.id}"
