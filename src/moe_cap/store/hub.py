"""A store in a dataset repository of the Hugging Face Hub.

`create_commit(parent_commit=...)` is compare-and-swap, with four traps that this module closes:

* the client drops an unchanged file from a commit, and with it a commit of nothing else together with its parent check;
* downloads by branch name may come from the local cache when the Hub is away: here everything is read at a commit;
* `repo_info` may show a head that is older than our own last commit;
* a `.gitignore` in the repository drops files silently, which would turn a move into a loss.
"""

from __future__ import annotations

import logging
import re
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import httpx2
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, cached_assets_path, hf_hub_url
from huggingface_hub.errors import (
    HFValidationError,
    LocalTokenNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # public, but exported lazily
    build_hf_headers,
    get_session,
    hf_raise_for_status,
    http_backoff,
    paginate,
    validate_repo_id,
)

from moe_cap.errors import ConflictError, InvalidInputError, NotFoundError, StoreAccessError, StoreError
from moe_cap.store.base import blob_id, check_change, check_prefix
from moe_cap.store.blobs import BlobCache, has_content_id
from moe_cap.store.hub_answers import asking, committing

log = logging.getLogger(__name__)

REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
BRANCH = "main"
NOT_MADE = "none"
"""The revision of a repository that is not there yet: empty, and the first commit makes it."""
REMEMBERED_LISTINGS = 8
LAG_COMMITS = 50
"""How far the head that the Hub shows may lie behind our own last commit."""
CONNECT_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 70.0
"""The Hub gives up on a commit after 60 s; its own answer is worth waiting for."""


class HubStore:
    """A Store over the `main` branch of one dataset repository, which the first write creates when it is missing."""

    parallel_reads = 8

    def __init__(
        self,
        repo_id: str,
        *,
        token: str | None = None,
        endpoint: str | None = None,
        cache_folder: Path | None = None,
        heartbeat_s: float = 600.0,
    ) -> None:
        """Prepare; nothing is asked yet.

        Args:
            repo_id: `namespace/name` of the dataset.
            token: None takes the login of this machine, if any.
            endpoint: of the Hub; None takes the client's default.
            cache_folder: where fetched blobs are kept; None takes the client's assets folder.
            heartbeat_s: pause between renewals of a lease. A repository takes 128 commits an hour, from all writers.
        """
        if not REPO_ID.fullmatch(repo_id):
            raise InvalidInputError(f"{repo_id!r} is not a repository: give 'namespace/name'")
        try:
            validate_repo_id(repo_id)
        except HFValidationError as error:
            raise InvalidInputError(f"the Hub has no such names: {error}") from error
        self.repo_id = repo_id
        self.heartbeat_s = heartbeat_s
        self._token = token
        self._api = HfApi(endpoint=endpoint, token=token)
        self._blobs = BlobCache(cache_folder or cached_assets_path("moe-cap", namespace="blobs"))
        self._listings: OrderedDict[tuple[str, str], dict[str, str]] = OrderedDict()
        self._newest: str | None = None
        self._was_missed = False
        self._lock = threading.Lock()

    def head(self) -> str:
        """Return the newest commit; where there is no repository yet, what stands for that: reading creates none."""
        before = self._newest
        if (seen := self._look()) is None:
            return self._missed()
        if before is not None and seen != before and seen in self._ancestors(before):
            seen = before
        with self._lock:
            if self._newest == before:  # otherwise another thread of ours committed meanwhile
                self._newest = seen
            return self._newest or seen

    def list(self, prefix: str, rev: str) -> dict[str, str]:
        """Return path to content id below `prefix` at `rev`: git blob id, for large files their sha256."""
        check_prefix(prefix)
        if rev == NOT_MADE:
            return {}
        known = self._listings.get((rev, ""), self._listings.get((rev, prefix)))
        if known is None:
            known = self._fetch_listing(prefix, rev)
            with self._lock:
                self._listings[rev, prefix] = known
                while len(self._listings) > REMEMBERED_LISTINGS:
                    self._listings.popitem(last=False)
        return {path: content_id for path, content_id in known.items() if path.startswith(prefix)}

    def read(self, path: str, rev: str) -> bytes:
        """Return the bytes of `path` at `rev`, over the network only if this content was never fetched before."""
        listing = self._listings.get((rev, ""))
        if rev == NOT_MADE or (listing is not None and path not in listing):
            raise NotFoundError(f"{path} is not in {self.repo_id} at {rev}")
        content_id = listing[path] if listing is not None else None
        if content_id is not None and (data := self._blobs.get(content_id)) is not None:
            return data
        data = self._fetch(path, rev)
        if content_id is not None and not has_content_id(data, content_id):
            raise ConflictError(f"{path} arrived damaged from {self.repo_id}")
        self._blobs.put(content_id or blob_id(data), data)
        return data

    def commit(self, puts: Mapping[str, bytes], deletes: Sequence[str], parent: str, message: str) -> str:
        """Commit if the branch is still at `parent`."""
        check_change(puts, deletes)
        if deletes and (missing := set(deletes) - self.list("", parent).keys()):
            raise NotFoundError(f"cannot be removed, not there: {', '.join(sorted(missing))}")
        if parent == NOT_MADE:
            parent = self._first_parent()
        additions = [CommitOperationAdd(path, data) for path, data in puts.items()]
        self._prepare(additions)
        unchanged = all(addition._remote_oid == addition._local_oid for addition in additions)
        rev = self._confirm(parent) if unchanged and not deletes else self._send(additions, deletes, parent, message)
        with self._lock:
            self._newest = rev
        return rev

    def check_writable(self) -> None:
        """Take the first step of a commit, which the Hub allows to who may write; a missing repository is not made."""
        if self.head() != NOT_MADE:
            self._prepare([CommitOperationAdd("README.md", b"-")])

    def _look(self) -> str | None:
        _bound_waiting()
        with asking(f"reading {self.repo_id}"):
            try:
                info = self._api.repo_info(
                    self.repo_id, repo_type="dataset", revision=BRANCH, timeout=CONNECT_TIMEOUT_S
                )
            except RepositoryNotFoundError:
                return None
        return str(info.sha)

    def _missed(self) -> str:
        """What stands for the head of a repository to be made; refused where it was there, or cannot be made."""
        if self._newest is not None:
            raise StoreAccessError(f"The dataset {self.repo_id} is gone, or this token may not read it any more.")
        if not self._can_make():
            raise self._out_of_reach()
        if not self._was_missed:
            self._was_missed = True
            log.warning("there is no dataset %s that this token may see: the first write creates it", self.repo_id)
        return NOT_MADE

    def _can_make(self) -> bool:
        """Whether this token may create the repository; of a fine-grained one the Hub does not tell before."""
        with asking(f"asking whose token this is, for {self.repo_id}"):
            try:
                login = self._api.whoami(cache=True)
            except LocalTokenNotFoundError:
                return False
        role = login["auth"].get("accessToken", {}).get("role")
        names = {str(owner["name"]).lower() for owner in (login, *login.get("orgs", ()))}
        is_own = self.repo_id.partition("/")[0].lower() in names
        return role != "read" and (role != "write" or is_own)

    def _out_of_reach(self) -> StoreAccessError:
        return StoreAccessError(
            f"There is no dataset {self.repo_id} that this token may read, and it may not create one. "
            f"Create it on {self._api.endpoint}/new-dataset, or set HF_TOKEN to a token with write access."
        )

    def _create(self) -> str:
        """Make the repository, if nobody else did meanwhile; its head."""
        try:
            with asking(f"creating {self.repo_id}"):
                self._api.create_repo(self.repo_id, repo_type="dataset", exist_ok=True)
        except StoreAccessError as error:
            raise self._out_of_reach() from error
        if (seen := self._look()) is None:
            raise StoreAccessError(f"The dataset {self.repo_id} exists, but this token may not read it.")
        return seen

    def _first_parent(self) -> str:
        """The commit that a repository begins with; what the Hub itself puts there is hidden."""
        parent = self._create()
        if self.list("", parent):
            raise ConflictError(f"{self.repo_id} was made meanwhile and is at {parent}")
        return parent

    def _ancestors(self, rev: str) -> frozenset[str]:
        """Return the commits just below `rev`; none if the Hub does not know `rev` any more (squashed history)."""
        url = f"{self._api.endpoint}/api/datasets/{self.repo_id}/commits/{rev}"
        with asking(f"reading the history of {self.repo_id}"):
            try:
                commits = paginate(url, params={}, headers=build_hf_headers(token=self._token))
                return frozenset(commit["id"] for commit in islice(commits, LAG_COMMITS))
            except RevisionNotFoundError:
                return frozenset()

    def _fetch_listing(self, prefix: str, rev: str) -> dict[str, str]:
        _bound_waiting()
        with asking(f"listing {self.repo_id}"):
            try:
                entries = list(
                    self._api.list_repo_tree(
                        self.repo_id, prefix.rstrip("/") or None, recursive=True, revision=rev, repo_type="dataset"
                    )
                )
            except RemoteEntryNotFoundError:
                return {}
        files = [entry for entry in entries if isinstance(entry, RepoFile) and not _is_hidden(entry.path)]
        return {file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in files}

    def _fetch(self, path: str, rev: str) -> bytes:
        _bound_waiting()
        url = hf_hub_url(self.repo_id, path, repo_type="dataset", revision=rev, endpoint=self._api.endpoint)
        with asking(f"reading {path} of {self.repo_id}"):
            try:
                answer = http_backoff("GET", url, headers=build_hf_headers(token=self._token), max_retries=2)
                hf_raise_for_status(answer)
            except RemoteEntryNotFoundError as error:
                raise NotFoundError(f"{path} is not in {self.repo_id} at {rev}") from error
        return answer.content

    def _prepare(self, additions: Sequence[CommitOperationAdd]) -> None:
        """Do the client's own first step ahead of the commit, to see what it would drop while nothing is written."""
        _bound_waiting()
        with asking(f"preparing a commit to {self.repo_id}"):
            self._api.preupload_lfs_files(
                self.repo_id, additions, repo_type="dataset", revision=BRANCH, free_memory=False
            )
        if ignored := [addition.path_in_repo for addition in additions if addition._should_ignore]:
            raise StoreError(f"A .gitignore in {self.repo_id} would drop {', '.join(ignored)}: remove it there")

    def _confirm(self, parent: str) -> str:
        """Check the parent of a commit that changes nothing, which the client does not."""
        if (head := self.head()) != parent:
            raise ConflictError(f"{self.repo_id} is at {head}, not at {parent} any more")
        return parent

    def _send(self, additions: Sequence[CommitOperationAdd], deletes: Sequence[str], parent: str, message: str) -> str:
        with committing(f"committing to {self.repo_id}"):
            return self._api.create_commit(
                self.repo_id,
                [*additions, *(CommitOperationDelete(path) for path in deletes)],
                commit_message=message,
                repo_type="dataset",
                revision=BRANCH,
                parent_commit=parent,
            ).oid


def _is_hidden(path: str) -> bool:
    return path.startswith(".") or "/." in path


def _bound_waiting() -> None:
    """Let no request of the client wait for ever, which is its default; the hook stays on its shared session."""
    hooks = get_session().event_hooks["request"]
    if _limit_waiting not in hooks:
        hooks.append(_limit_waiting)


def _limit_waiting(request: httpx2.Request) -> None:
    asked = request.extensions.get("timeout", {})
    limits = {
        "connect": CONNECT_TIMEOUT_S,
        "pool": CONNECT_TIMEOUT_S,
        "read": ANSWER_TIMEOUT_S,
        "write": ANSWER_TIMEOUT_S,
    }
    request.extensions["timeout"] = {phase: asked.get(phase) or limit_s for phase, limit_s in limits.items()}
