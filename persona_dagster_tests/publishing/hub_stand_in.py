"""The endpoints of the Hub that a release uses, on loopback: repositories, LFS, commits, tags, downloads.

Shapes follow what huggingface_hub 1.33 sends and reads; `log` keeps every request for a test to look at.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

TOKEN = "hf_" + "x" * 34
READER = "hf_" + "r" * 34


@dataclass
class Hub:
    repos: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)  # repo -> commit -> path -> sha256
    refs: dict[str, dict[str, str]] = field(default_factory=dict)  # repo -> branch or tag -> commit
    blobs: dict[str, bytes] = field(default_factory=dict)
    lfs: set[str] = field(default_factory=set)
    log: list[tuple[str, str]] = field(default_factory=list)
    private: dict[str, bool] = field(default_factory=dict)
    quota: int = 10**9  # bytes of LFS objects
    break_puts: int = 0  # uploads that are cut off before they end
    tamper: str | None = None  # a path whose download is not what was uploaded


def git_oid(hub: Hub, oid: str | None) -> str | None:
    """What the Hub tells of a file that is there: sha256 of an LFS object, else git's sha1 of the blob."""
    if oid is None or oid in hub.lfs:
        return oid
    return hashlib.sha1(b"blob %d\0" % len(hub.blobs[oid]) + hub.blobs[oid]).hexdigest()


def build(hub: Hub) -> FastAPI:
    app = FastAPI()

    @app.middleware("http")
    async def keep(request: Request, go_on: Any) -> Response:
        hub.log.append((request.method, request.url.path))
        return await go_on(request)

    def refused(request: Request, write: bool = True) -> Response | None:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token == TOKEN or (not write and token == READER):
            return None
        if token == READER:
            return problem(403, "You don't have the rights to write in this namespace")
        return problem(401, "Invalid username or password.")

    def problem(status: int, message: str, code: str | None = None) -> Response:
        headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        return JSONResponse({"error": message}, status, headers=headers)

    @app.post("/api/repos/create")
    async def create(request: Request) -> Response:
        if (no := refused(request)) is not None:
            return no
        body = await request.json()
        repo = f"{body['organization']}/{body['name']}" if body.get("organization") else f"me/{body['name']}"
        if repo in hub.repos:
            # As the Hub does, with the address of the one that is there: the client reads it.
            message = "You already created this model repo"
            return JSONResponse({"error": message, "url": str(request.base_url) + repo}, 409)
        first = "0" * 40
        hub.repos[repo], hub.refs[repo] = {first: {}}, {"main": first}
        hub.private[repo] = bool(body.get("private")) or body.get("visibility") == "private"
        return JSONResponse({"url": str(request.base_url) + repo, "name": repo})

    @app.post("/api/validate-yaml")
    async def validate(request: Request) -> Response:
        body = await request.json()
        missing = not body["content"].startswith("---\n")
        return JSONResponse({"errors": [{"message": "no metadata"}] if missing else [], "warnings": []})

    @app.post("/api/models/{owner}/{name}/preupload/{revision}")
    async def preupload(owner: str, name: str, revision: str, request: Request) -> Response:
        if (no := refused(request)) is not None:
            return no
        now = hub.repos[f"{owner}/{name}"][hub.refs[f"{owner}/{name}"]["main"]]
        files = (await request.json())["files"]
        modes = {True: "lfs", False: "regular"}
        return JSONResponse(
            {
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": modes[file["path"].endswith((".safetensors", ".png", ".gguf"))],
                        "shouldIgnore": False,
                        "oid": git_oid(hub, now.get(file["path"])),
                    }
                    for file in files
                ]
            }
        )

    @app.post("/{owner}/{name}.git/info/lfs/objects/batch")
    async def batch(owner: str, name: str, request: Request) -> Response:
        if (no := refused(request)) is not None:
            return no
        body = await request.json()
        assert request.headers["content-type"] == "application/vnd.git-lfs+json"
        assert "basic" in body["transfers"]
        objects: list[dict[str, Any]] = []
        used = sum(len(hub.blobs[oid]) for oid in hub.lfs)
        for asked in body["objects"]:
            if asked["oid"] in hub.blobs:
                objects.append({"oid": asked["oid"], "size": asked["size"]})
            elif used + asked["size"] > hub.quota:
                error = {"code": 403, "message": "Private repository storage limit reached"}
                objects.append({"oid": asked["oid"], "size": asked["size"], "error": error})
            else:
                href = f"{request.base_url}lfs/{asked['oid']}"
                actions = {"upload": {"href": href}, "verify": {"href": f"{href}/verify"}}
                objects.append({"oid": asked["oid"], "size": asked["size"], "actions": actions})
        return JSONResponse({"transfer": "basic", "objects": objects})

    @app.put("/lfs/{oid}")
    async def put(oid: str, request: Request) -> Response:
        data = b""
        async for chunk in request.stream():
            data += chunk
        if hub.break_puts:
            hub.break_puts -= 1
            return problem(400, "The connection was cut before the upload was whole")
        if hashlib.sha256(data).hexdigest() != oid:
            return problem(400, "sha256 mismatch")
        hub.blobs[oid] = data
        hub.lfs.add(oid)
        return Response(status_code=200)

    @app.post("/lfs/{oid}/verify")
    async def verified(oid: str) -> Response:
        return JSONResponse({}) if oid in hub.blobs else problem(404, "no such object")

    @app.post("/api/models/{owner}/{name}/commit/{revision}")
    async def commit(owner: str, name: str, revision: str, request: Request) -> Response:
        if (no := refused(request)) is not None:
            return no
        repo = f"{owner}/{name}"
        tree = dict(hub.repos[repo][hub.refs[repo][revision]])
        lines = [json.loads(line) for line in (await request.body()).splitlines()]
        assert lines[0]["key"] == "header"
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                data = base64.b64decode(value["content"])
                oid = hashlib.sha256(data).hexdigest()
                hub.blobs[oid] = data
            else:
                oid = value["oid"]
                if line["key"] != "lfsFile" or oid not in hub.blobs:
                    return problem(400, f"{value['path']}: LFS object missing")
            tree[value["path"]] = oid
        sha = hashlib.sha1(json.dumps(sorted(tree.items())).encode()).hexdigest()
        hub.repos[repo][sha] = tree
        hub.refs[repo][revision] = sha
        return JSONResponse({"commitUrl": f"{request.base_url}{repo}/commit/{sha}", "commitOid": sha})

    @app.post("/api/models/{owner}/{name}/tag/{revision}")
    async def tag(owner: str, name: str, revision: str, request: Request) -> Response:
        if (no := refused(request)) is not None:
            return no
        refs, wanted = hub.refs[f"{owner}/{name}"], (await request.json())["tag"]
        if wanted in refs:
            return problem(409, "Tag already exists")
        refs[wanted] = refs.get(revision, revision)
        return JSONResponse({})

    def found(repo: str, revision: str) -> tuple[str, dict[str, str]] | None:
        commit = hub.refs.get(repo, {}).get(revision, revision)
        tree = hub.repos.get(repo, {}).get(commit)
        return None if tree is None else (commit, tree)

    @app.get("/api/models/{owner}/{name}/revision/{revision}")
    async def info(owner: str, name: str, revision: str, request: Request) -> Response:
        if hub.private.get(f"{owner}/{name}", True) and refused(request, write=False) is not None:
            return problem(401, "Repository Not Found", "RepoNotFound")
        at = found(f"{owner}/{name}", revision)
        if at is None:
            return problem(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        siblings = [{"rfilename": path} for path in at[1]]
        return JSONResponse({"id": f"{owner}/{name}", "sha": at[0], "siblings": siblings, "private": True, "tags": []})

    @app.get("/api/models/{owner}/{name}/tree/{revision}")
    async def tree(owner: str, name: str, revision: str) -> Response:
        at = found(f"{owner}/{name}", revision)
        if at is None:
            return problem(404, "no such revision", "RevisionNotFound")
        entries = [
            {"type": "file", "path": path, "size": len(hub.blobs[oid]), "oid": oid} for path, oid in at[1].items()
        ]
        return JSONResponse(entries)

    @app.api_route("/{owner}/{name}/resolve/{revision}/{path:path}", methods=["GET", "HEAD"])
    async def resolve(owner: str, name: str, revision: str, path: str) -> Response:
        at = found(f"{owner}/{name}", revision)
        if at is None or path not in at[1]:
            return problem(404, "Entry not found", "EntryNotFound")
        data = hub.blobs[at[1][path]]
        if hub.tamper == path:
            data = data[:-1] + bytes([data[-1] ^ 1])
        return Response(data, headers={"X-Repo-Commit": at[0], "ETag": f'"{at[1][path]}"'})

    return app
