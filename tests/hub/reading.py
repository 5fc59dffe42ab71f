"""Routes that change nothing: who am I, what is in this repository, give me this file."""

from typing import Any
from urllib.parse import parse_qs

from starlette.responses import JSONResponse, Response

from .double import Commit, HubError, git_id, now
from .exchange import Exchange


def whoami(ask: Exchange) -> Response:
    user = ask.login
    return JSONResponse(
        {
            "type": "user",
            "id": user.name,
            "name": user.name,
            "fullname": user.name,
            "avatarUrl": "",
            "email": "x@example.org",
            "emailVerified": True,
            "isPro": False,
            "canPay": False,
            "orgs": [
                {"type": "org", "id": org, "name": org, "fullname": org, "roleInOrg": "write"} for org in user.orgs
            ],
            "auth": {
                "type": "access_token",
                "accessToken": {"displayName": "test", "role": user.role, "createdAt": now()},
            },
        }
    )


def list_repos(ask: Exchange) -> Response:
    mine = [repo for (kind, _), repo in ask.hub.repos.items() if kind == ask.kind]
    visible = [repo for repo in mine if not repo.private or (ask.user and ask.user.owns(repo.namespace))]
    return JSONResponse([{"id": repo.id, "private": repo.private, "tags": []} for repo in visible])


def info(ask: Exchange) -> Response:
    repo, rev = ask.repo, ask.param("rev", "main")
    commit = repo.at(rev)
    if commit.parent is not None and commit.oid != rev and ask.faults.takes_stale_head():
        commit = commit.parent
    with_blobs = ask.flag("blobs")
    siblings = [
        {"rfilename": path, **({"size": len(blob.data), "blobId": blob.oid} if with_blobs else {})}
        for path, blob in sorted(commit.files.items())
    ]
    return JSONResponse(
        {
            "_id": "0" * 24,
            "id": repo.id,
            "author": repo.namespace,
            "sha": commit.oid,
            "siblings": siblings,
            "lastModified": commit.date,
            "createdAt": repo.created,
            "private": repo.private,
            "disabled": False,
            "gated": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "usedStorage": sum(len(blob.data) for blob in commit.files.values()),
        }
    )


def _file_entry(commit: Commit, path: str, *, expand: bool) -> dict[str, Any]:
    blob = commit.files[path]
    entry: dict[str, Any] = {"type": "file", "oid": blob.oid, "size": len(blob.data), "path": path}
    if blob.sha256:
        entry["lfs"] = {"oid": blob.sha256, "size": len(blob.data), "pointerSize": 134}
    if expand:
        last = next((c for c in commit.history() if path in c.touched), commit)
        entry["lastCommit"] = {"id": last.oid, "title": last.title, "date": last.date}
    return entry


def _folder_entry(path: str) -> dict[str, Any]:
    return {"type": "directory", "oid": git_id("tree", path.encode()), "size": 0, "path": path}


def tree(ask: Exchange) -> Response:
    commit, folder = ask.repo.at(ask.param("rev")), ask.param("path")
    folders = commit.folders()
    if folder and folder not in folders:
        raise HubError(404, f"{folder} does not exist on {ask.param('rev')}", "EntryNotFound")
    prefix = f"{folder}/" if folder else ""

    def is_shown(path: str) -> bool:
        return path.startswith(prefix) and (ask.flag("recursive") or "/" not in path[len(prefix) :])

    expand = ask.flag("expand")
    entries = [_folder_entry(path) for path in sorted(folders) if is_shown(path)]
    entries += [_file_entry(commit, path, expand=expand) for path in sorted(commit.files) if is_shown(path)]
    return _page(ask, entries, 50 if expand else ask.hub.page_size)


def _page(ask: Exchange, entries: list[dict[str, Any]], size: int) -> Response:
    start = int(ask.request.query_params.get("cursor", 0))
    headers = {}
    if start + size < len(entries):
        query = "&".join(f"{name}={value}" for name, value in ask.request.query_params.items() if name != "cursor")
        headers["Link"] = f'<{ask.base_url}{ask.request.scope["path"]}?{query}&cursor={start + size}>; rel="next"'
    return JSONResponse(entries[start : start + size], headers=headers)


def paths_info(ask: Exchange) -> Response:
    commit, asked = ask.repo.at(ask.param("rev")), parse_qs(ask.body.decode())
    folders, expand = commit.folders(), asked.get("expand") == ["true"]
    found = [
        _file_entry(commit, path, expand=expand) if path in commit.files else _folder_entry(path)
        for path in asked["paths"]
        if path in commit.files or path in folders
    ]
    return JSONResponse(found)


def refs(ask: Exchange) -> Response:
    def below(prefix: str) -> list[dict[str, str]]:
        return [
            {"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": commit.oid}
            for ref, commit in ask.repo.refs.items()
            if ref.startswith(prefix)
        ]

    answer = {"branches": below("refs/heads/"), "tags": below("refs/tags/"), "converts": []}
    if ask.flag("include_prs"):
        answer["pullRequests"] = below("refs/")
    return JSONResponse(answer)


def commits(ask: Exchange) -> Response:
    entries = [
        {"id": c.oid, "title": c.title, "message": c.message, "date": c.date, "authors": [{"user": c.author}]}
        for c in ask.repo.at(ask.param("rev")).history()
    ]
    return _page(ask, entries, 50)


def resolve(ask: Exchange) -> Response:
    commit, path = ask.repo.at(ask.param("rev")), ask.param("path")
    blob = commit.files.get(path)
    if blob is None:
        raise HubError(404, "Entry not found", "EntryNotFound", X_Repo_Commit=commit.oid)
    data, etag = blob.data, f'"{blob.etag}"'
    headers = {"X-Repo-Commit": commit.oid, "ETag": etag, "Accept-Ranges": "bytes"}
    headers |= {"X-Linked-Size": str(len(data)), "X-Linked-Etag": etag}
    if ask.request.method == "HEAD":
        return Response(headers={**headers, "Content-Length": str(len(data))})
    asked = ask.request.headers.get("range", "")
    if not asked.startswith("bytes="):
        return Response(data, headers=headers, media_type="application/octet-stream")
    first, _, last = asked.removeprefix("bytes=").partition("-")
    start, end = int(first or 0), min(int(last or len(data) - 1), len(data) - 1)
    if start >= len(data):
        return Response(status_code=416, headers={"Content-Range": f"bytes */{len(data)}"})
    headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
    return Response(data[start : end + 1], 206, headers, media_type="application/octet-stream")


REPO = "/api/{kind}/{ns}/{name}"
ROUTES = [
    ("GET", "/api/whoami-v2", whoami),
    ("GET", "/api/{kind}", list_repos),
    ("GET", REPO, info),
    ("GET", f"{REPO}/revision/{{rev}}", info),
    ("GET", f"{REPO}/auth-check", lambda ask: JSONResponse({"ok": bool(ask.repo)})),
    ("GET", f"{REPO}/tree/{{rev}}", tree),
    ("GET", f"{REPO}/tree/{{rev}}/{{path:path}}", tree),
    ("POST", f"{REPO}/paths-info/{{rev}}", paths_info),
    ("GET", f"{REPO}/refs", refs),
    ("GET", f"{REPO}/commits/{{rev}}", commits),
    ("GET", "/{kind}/{ns}/{name}/resolve/{rev}/{path:path}", resolve),
    ("GET", "/{ns}/{name}/resolve/{rev}/{path:path}", resolve),
]
