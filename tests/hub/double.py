"""What the Hub remembers, in memory: users, repositories, commits, references, discussions. No HTTP here."""

import hashlib
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

_ticks = itertools.count()


class HubError(Exception):
    """A refusal, as status code, message and the X-Error-Code by which the client knows it."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def git_id(kind: str, data: bytes) -> str:
    return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data).hexdigest()


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class Blob:
    """A file's content; a large one is stored under its sha256 and git sees only a pointer."""

    data: bytes
    sha256: str | None = None

    @property
    def oid(self) -> str:
        if self.sha256 is None:
            return git_id("blob", self.data)
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.data)}\n"
        return git_id("blob", pointer.encode())

    @property
    def etag(self) -> str:
        return self.sha256 or self.oid


@dataclass(frozen=True)
class Commit:
    files: Mapping[str, Blob]
    parent: "Commit | None"
    title: str
    message: str
    author: str
    touched: frozenset[str]
    date: str = field(default_factory=now)
    tick: int = field(default_factory=lambda: next(_ticks))

    def __post_init__(self) -> None:
        tree = "".join(f"{path} {blob.oid}\n" for path, blob in sorted(self.files.items()))
        above = self.parent.oid if self.parent else ""
        body = f"{tree}\n{above}\n{self.author} {self.date} {self.tick}\n{self.title}\n{self.message}"
        object.__setattr__(self, "oid", git_id("commit", body.encode()))

    oid: str = field(init=False, default="")

    def history(self) -> Iterable["Commit"]:
        commit: Commit | None = self
        while commit is not None:
            yield commit
            commit = commit.parent

    def folders(self) -> set[str]:
        ends = (path.split("/")[:-1] for path in self.files)
        return {"/".join(parts[:depth]) for parts in ends for depth in range(1, len(parts) + 1)}


@dataclass
class Discussion:
    num: int
    title: str
    author: str
    is_pull_request: bool
    status: str = "open"
    created: str = field(default_factory=now)
    merged: str | None = None


GIT_ATTRIBUTES = b"*.bin filter=lfs diff=lfs merge=lfs -text\n*.parquet filter=lfs diff=lfs merge=lfs -text\n"


class Repo:
    """One repository: references to commits, and the large files that were uploaded to it."""

    def __init__(self, kind: str, repo_id: str, *, private: bool, author: str) -> None:
        self.kind, self.id, self.private, self.created = kind, repo_id, private, now()
        first = Commit({".gitattributes": Blob(GIT_ATTRIBUTES)}, None, "initial commit", "", author, frozenset())
        self.refs = {"refs/heads/main": first}
        self.commits = {first.oid: first}
        self.large: dict[str, bytes] = {}
        self.discussions: list[Discussion] = []
        self.is_locked = False

    @property
    def namespace(self) -> str:
        return self.id.split("/")[0]

    def at(self, rev: str) -> Commit:
        for name in (f"refs/heads/{rev}", f"refs/tags/{rev}", rev):
            if name in self.refs:
                return self.refs[name]
        matches = [commit for oid, commit in self.commits.items() if len(rev) >= 7 and oid.startswith(rev)]
        if len(matches) == 1:
            return matches[0]
        raise HubError(404, f"Invalid rev id: {rev}", "RevisionNotFound")

    def add(self, commit: Commit, ref: str) -> Commit:
        self.commits[commit.oid] = self.refs[ref] = commit
        return commit

    def branch_for_commit(self, rev: str, parent: str | None) -> tuple[str, Commit]:
        """Return the reference to move and its head, if `parent` (or a prefix of it) is still that head."""
        ref = rev if rev.startswith("refs/") else f"refs/heads/{rev}"
        if ref not in self.refs:
            raise HubError(404, f"Invalid rev id: {rev}", "RevisionNotFound")
        head = self.refs[ref]
        if parent is not None and not head.oid.startswith(parent):
            raise HubError(412, "The branch was updated since you opened this page. Please refresh and try again.")
        return ref, head

    def open_discussion(self, title: str, author: str, *, is_pull_request: bool, status: str = "open") -> Discussion:
        discussion = Discussion(len(self.discussions) + 1, title, author, is_pull_request, status)
        self.discussions.append(discussion)
        return discussion

    def merge(self, discussion: Discussion, author: str) -> None:
        head = self.refs["refs/heads/main"]
        theirs = [commit for commit in self.refs[f"refs/pr/{discussion.num}"].history() if commit.parent is not None]
        files, touched = dict(head.files), set()
        for commit in reversed(theirs):
            for path in commit.touched:
                files.pop(path, None)
                if path in commit.files:
                    files[path] = commit.files[path]
            touched |= commit.touched
        title = f"{discussion.title} (#{discussion.num})"
        merged = self.add(Commit(files, head, title, "", author, frozenset(touched)), "refs/heads/main")
        discussion.status, discussion.merged = "merged", merged.oid


@dataclass
class User:
    name: str
    role: str = "write"
    orgs: tuple[str, ...] = ()

    def owns(self, namespace: str) -> bool:
        return namespace in (self.name, *self.orgs)


@dataclass
class Hub:
    """All repositories and tokens of the double."""

    large_bytes: int = 10 * 2**20
    page_size: int = 1000
    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    moved: dict[tuple[str, str], str] = field(default_factory=dict)
    users: dict[str, User] = field(default_factory=dict)

    def add_user(self, name: str, token: str, *, role: str = "write", orgs: Iterable[str] = ()) -> None:
        self.users[token] = User(name, role, tuple(orgs))

    def find(self, kind: str, repo_id: str, user: User | None) -> Repo:
        repo = self.repos.get((kind, self.moved.get((kind, repo_id), repo_id)))
        if repo is None or (repo.private and not (user and user.owns(repo.namespace))):
            raise HubError(401 if user is None else 404, "Repository not found", "RepoNotFound")
        return repo
