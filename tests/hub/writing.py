"""Routes that change something: repositories, commits, branches, tags, large files, discussions."""

import asyncio
import base64
import fnmatch
import hashlib
import json
from typing import Any

from starlette.responses import JSONResponse, Response

from .double import Blob, Commit, Discussion, HubError, Repo
from .exchange import Exchange

ALWAYS_LARGE = (".bin", ".parquet", ".arrow", ".safetensors", ".zip")


def create_repo(ask: Exchange) -> Response:
    asked, login = ask.json(), ask.login
    kind, namespace = asked.get("type") or "model", asked.get("organization") or login.name
    if login.role != "write" or not login.owns(namespace):
        raise HubError(403, f'You don\'t have the rights to create a {kind} under the namespace "{namespace}"')
    repo_id = f"{namespace}/{asked['name']}"
    exists = (kind, repo_id) in ask.hub.repos
    if not exists:
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        ask.hub.repos[kind, repo_id] = Repo(kind, repo_id, private=private, author=login.name)
    answer = {"url": ask.page_of(ask.hub.repos[kind, repo_id]), "name": repo_id, "id": repo_id}
    if exists:
        answer["error"] = f"You already created this {kind} repo"
    return JSONResponse(answer, 409 if exists else 200)


def delete_repo(ask: Exchange) -> Response:
    asked, login = ask.json(), ask.login
    kind, namespace = asked.get("type") or "model", asked.get("organization") or login.name
    if login.role != "write" or not login.owns(namespace):
        raise HubError(403, "Forbidden")
    repo = ask.hub.find(kind, f"{namespace}/{asked['name']}", login)
    del ask.hub.repos[kind, repo.id]
    return JSONResponse({})


def move_repo(ask: Exchange) -> Response:
    asked = ask.json()
    kind, old, new = asked.get("type") or "model", asked["fromRepo"], asked["toRepo"]
    repo = ask.hub.find(kind, old, ask.login)
    ask.hub.repos[kind, new] = ask.hub.repos.pop((kind, repo.id))
    repo.id, ask.hub.moved[kind, old] = new, new
    return JSONResponse({})


def settings(ask: Exchange) -> Response:
    asked = ask.json()
    if "visibility" in asked or "private" in asked:
        ask.own_repo.private = asked.get("visibility") == "private" or bool(asked.get("private"))
    return JSONResponse(asked)


def preupload(ask: Exchange) -> Response:
    """Say for each file how it is to be sent; anybody may ask who could open a pull request."""
    if not ask.flag("create_pr"):
        _ = ask.own_repo
    asked, commit = ask.json(), ask.repo.at(ask.param("rev"))
    hosted = commit.files.get(".gitignore")
    ignored = asked.get("gitIgnore") or (hosted.data.decode() if hosted else "")
    answers = []
    for file in asked["files"]:
        path, blob = file["path"], commit.files.get(file["path"])
        is_large = file["size"] >= ask.hub.large_bytes or path.endswith(ALWAYS_LARGE)
        answer = {"path": path, "uploadMode": "lfs" if is_large else "regular", "shouldIgnore": _ignores(ignored, path)}
        answers.append(answer | ({"oid": blob.etag} if blob else {}))
    return JSONResponse({"files": answers, "commitOid": commit.oid})


def _ignores(rules: str, path: str) -> bool:
    patterns = [rule.strip().rstrip("/") for rule in rules.splitlines() if rule.strip() and not rule.startswith("#")]
    parts = path.split("/")
    return any(fnmatch.fnmatch(part, pattern) for pattern in patterns for part in (*parts, path))


async def commit(ask: Exchange) -> Response:
    is_pull_request = ask.flag("create_pr")
    repo, login = (ask.repo if is_pull_request else ask.own_repo), ask.login
    if repo.is_locked:
        raise HubError(409, "Another commit operation is in progress for this repository. Please try again later.")
    repo.is_locked = True
    try:
        await asyncio.sleep(ask.faults.commit_s)
        lines = [json.loads(line) for line in ask.body.splitlines() if line.strip()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        parent, rev = header.get("parentCommit"), ask.param("rev")
        if is_pull_request:
            ref, base = "", repo.at(parent or rev)
        else:
            ref, base = repo.branch_for_commit(rev, parent)
        files, touched = _apply(repo, dict(base.files), lines)
        made = Commit(files, base, header["summary"], header.get("description", ""), login.name, frozenset(touched))
        answer = {"success": True, "commitUrl": f"{ask.page_of(repo)}/commit/{made.oid}", "commitOid": made.oid}
        if is_pull_request:
            discussion = repo.open_discussion(made.title, login.name, is_pull_request=True)
            ref = f"refs/pr/{discussion.num}"
            answer["pullRequestUrl"] = f"{ask.page_of(repo)}/discussions/{discussion.num}"
        repo.add(made, ref)
        return JSONResponse(answer)
    finally:
        repo.is_locked = False


def _apply(repo: Repo, files: dict[str, Blob], lines: list[dict[str, Any]]) -> tuple[dict[str, Blob], set[str]]:
    touched: set[str] = set()
    for key, value in ((line["key"], line["value"]) for line in lines if line["key"] != "header"):
        path = value["path"].rstrip("/") if key == "deletedFolder" else value["path"]
        if path.startswith("/") or path.endswith("/") or ".." in path.split("/"):
            raise HubError(400, f"Invalid path {path}")
        if key == "file":
            is_base64 = value.get("encoding") == "base64"
            files[path] = Blob(base64.b64decode(value["content"]) if is_base64 else value["content"].encode())
        elif key == "lfsFile":
            if value["oid"] not in repo.large:
                raise HubError(400, f"LFS object {value['oid']} not uploaded")
            files[path] = Blob(repo.large[value["oid"]], value["oid"])
        else:
            gone = [p for p in files if p == path or (key == "deletedFolder" and p.startswith(f"{path}/"))]
            if not gone:
                raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
            for each in gone:
                del files[each]
            touched |= set(gone)
        touched.add(path)
    return files, touched


def large_batch(ask: Exchange) -> Response:
    objects = []
    for asked in ask.json()["objects"]:
        answer = {"oid": asked["oid"], "size": asked["size"], "authenticated": True}
        if asked["oid"] not in ask.repo.large:
            target = f"{ask.base_url}/large/{ask.repo.kind}s/{ask.repo.id}/{asked['oid']}"
            answer["actions"] = {name: {"href": f"{target}?step={name}", "header": {}} for name in ("upload", "verify")}
        objects.append(answer)
    body = json.dumps({"transfer": "basic", "objects": objects})
    return Response(body, media_type="application/vnd.git-lfs+json")


def large_upload(ask: Exchange) -> Response:
    repo = ask.hub.repos[ask.kind, f"{ask.param('ns')}/{ask.param('name')}"]  # the address itself is the permission
    if hashlib.sha256(ask.body).hexdigest() != ask.param("sha256"):
        raise HubError(400, "sha256 mismatch")
    repo.large[ask.param("sha256")] = ask.body
    return JSONResponse({})


def create_ref(ask: Exchange) -> Response:
    """A branch is named by the address and starts at `startingPoint`; a tag is named in the body."""
    repo, asked = ask.own_repo, ask.json()
    is_tag = ask.param("what") == "tag"
    ref = f"refs/tags/{asked['tag']}" if is_tag else f"refs/heads/{ask.param('rev')}"
    if ref in repo.refs:
        raise HubError(409, f"Reference already exists: {ref}")
    repo.refs[ref] = repo.at(ask.param("rev") if is_tag else asked.get("startingPoint") or "main")
    return JSONResponse({})


def delete_ref(ask: Exchange) -> Response:
    folder = {"branch": "heads", "tag": "tags"}[ask.param("what")]
    ask.own_repo.refs.pop(f"refs/{folder}/{ask.param('rev')}", None)
    return JSONResponse({})


def super_squash(ask: Exchange) -> Response:
    repo, ref = ask.own_repo, f"refs/heads/{ask.param('rev').removeprefix('refs/heads/')}"
    files = repo.refs[ref].files
    repo.commits.clear()
    repo.add(Commit(files, None, ask.json()["message"], "", ask.login.name, frozenset(files)), ref)
    return JSONResponse({})


def _brief(repo: Repo, discussion: Discussion) -> dict[str, Any]:
    return {
        "num": discussion.num,
        "title": discussion.title,
        "status": discussion.status,
        "isPullRequest": discussion.is_pull_request,
        "author": {"name": discussion.author},
        "createdAt": discussion.created,
        "repo": {"name": repo.id, "type": repo.kind},
    }


def list_discussions(ask: Exchange) -> Response:
    listed = [_brief(ask.repo, discussion) for discussion in reversed(ask.repo.discussions)]
    return JSONResponse({"discussions": listed, "count": len(listed), "start": 0})


def show_discussion(ask: Exchange) -> Response:
    discussion = ask.repo.discussions[int(ask.param("num")) - 1]
    changes = {"base": "refs/heads/main"} | ({"mergeCommitId": discussion.merged} if discussion.merged else {})
    return JSONResponse(
        {**_brief(ask.repo, discussion), "events": [], "changes": changes, "filesWithConflicts": [], "diff": ""}
    )


def merge_discussion(ask: Exchange) -> Response:
    ask.own_repo.merge(ask.repo.discussions[int(ask.param("num")) - 1], ask.login.name)
    return JSONResponse({})


REPO = "/api/{kind}/{ns}/{name}"
ROUTES = [
    ("POST", "/api/repos/create", create_repo),
    ("DELETE", "/api/repos/delete", delete_repo),
    ("POST", "/api/repos/move", move_repo),
    ("POST", "/api/validate-yaml", lambda ask: JSONResponse({"errors": [], "warnings": []})),
    ("PUT", f"{REPO}/settings", settings),
    ("POST", f"{REPO}/preupload/{{rev}}", preupload),
    ("POST", f"{REPO}/commit/{{rev}}", commit),
    ("POST", f"{REPO}/super-squash/{{rev}}", super_squash),
    ("GET", f"{REPO}/discussions", list_discussions),
    ("GET", f"{REPO}/discussions/{{num}}", show_discussion),
    ("POST", f"{REPO}/discussions/{{num}}/merge", merge_discussion),
    ("POST", f"{REPO}/{{what}}/{{rev}}", create_ref),
    ("DELETE", f"{REPO}/{{what}}/{{rev}}", delete_ref),
    ("POST", "/{kind}/{ns}/{name}.git/info/lfs/objects/batch", large_batch),
    ("POST", "/{ns}/{name}.git/info/lfs/objects/batch", large_batch),
    ("PUT", "/large/{kind}/{ns}/{name}/{sha256}", large_upload),
    ("POST", "/large/{kind}/{ns}/{name}/{sha256}", lambda ask: JSONResponse({})),
]
