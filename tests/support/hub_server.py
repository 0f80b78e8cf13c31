"""A local server that speaks the part of the Hugging Face Hub's protocol that reads and uploads models."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

_LARGE = (".safetensors", ".bin")
"""Kept by git-lfs on the Hub: served by way of a redirect, with the etag of its content."""


@dataclass
class Repository:
    files: dict[str, bytes]
    private: bool = False
    gated: bool = False
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def commit(self) -> str:
        state = hashlib.sha1(usedforsecurity=False)
        for name in sorted(self.files):
            state.update(name.encode() + b"\0" + self.files[name])
        return state.hexdigest()


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    sent: int = 0
    """Bytes of body that were sent."""


class HubServer(ThreadingHTTPServer):
    """Repositories by name, the requests that came in, and switches for faults."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, Repository] = {}
        self.history: dict[tuple[str, str], Repository] = {}
        self.requests: list[Request] = []
        self.uploaded: dict[str, bytes] = {}
        """Large files by digest, between their upload and the commit that names them."""
        self.messages: list[str] = []
        """Of the commits that were pushed."""
        self.token = "hf_right"
        self.drops = 0
        """How many more times the connection is cut in the middle of a large file."""
        self.fails = 0
        """How many more requests are answered 503."""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, name: str, directory: Path, **options: Any) -> Repository:
        """Serve the files of a directory as the newest commit of ``name``; earlier commits stay in reach.

        A data set's name begins with ``datasets/``.
        """
        entries = [entry for entry in sorted(directory.rglob("*")) if entry.is_file()]
        files = {entry.relative_to(directory).as_posix(): entry.read_bytes() for entry in entries}
        return self.put(name, Repository(files, **options))

    def put(self, name: str, repository: Repository) -> Repository:
        """Make ``repository`` the newest commit of ``name``."""
        self.repositories[name] = repository
        self.history[name, repository.commit] = repository
        return repository

    def bodies(self) -> int:
        """Bytes of model files that were sent since `forget`."""
        return sum(request.sent for request in self.requests if "/api/" not in request.path)

    def forget(self) -> None:
        self.requests.clear()

    @contextmanager
    def running(self) -> Iterator[Self]:
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.seen = Request(self.command, path, dict(self.headers))
        self.server.requests.append(self.seen)
        if self.server.fails > 0:
            self.server.fails -= 1
            self._refuse(503, "ServiceUnavailable", "try again later")
        elif match := re.fullmatch(r"/cdn/([0-9a-f]{64})", path):
            self._content(match[1])
        elif match := re.fullmatch(r"/api/(?:models/)?((?:datasets/)?.+?)/revision/(.+)", path):
            self._info(match[1], match[2])
        elif match := re.fullmatch(r"/api/(?:models/)?((?:datasets/)?.+?)/tree/([^/]+)/?", path):
            self._tree(match[1], match[2])
        elif match := re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", path):
            self._resolve(match[1], match[2], match[3])
        elif match := re.fullmatch(r"/api/(?:models/)?((?:datasets/)?[^/]+(?:/[^/]+)?)", path):
            self._info(match[1], "main")
        else:
            self._refuse(404, "NotFound", path)

    def do_POST(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.seen = Request("POST", path, dict(self.headers))
        self.server.requests.append(self.seen)
        if self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self._refuse(401, None, "Invalid username or password.")
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif match := re.fullmatch(r"/api/models/(.+?)/preupload/(.+)", path):
            modes = [
                {"path": file["path"], "shouldIgnore": False,
                 "uploadMode": "lfs" if file["path"].endswith(_LARGE) else "regular"}
                for file in json.loads(body)["files"]
            ]  # fmt: skip
            self._json({"files": modes})
        elif match := re.fullmatch(r"/(.+?)\.git/info/lfs/objects/batch", path):
            objects = [
                {"oid": item["oid"], "size": item["size"],
                 "actions": {"upload": {"href": f"{self.server.endpoint}/lfs/{item['oid']}"}}}
                for item in json.loads(body)["objects"]
            ]  # fmt: skip
            self._json({"transfer": "basic", "objects": objects})
        elif match := re.fullmatch(r"/api/models/(.+?)/commit/(.+)", path):
            self._commit(match[1], [json.loads(line) for line in body.splitlines()])
        else:
            self._refuse(404, "NotFound", path)

    def do_PUT(self) -> None:
        self.seen = Request("PUT", self.path, dict(self.headers))
        self.server.requests.append(self.seen)
        if "Content-Length" in self.headers:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        else:
            body = b"".join(iter(self._chunk, b""))
        assert self.path == f"/lfs/{_sha256(body)}"
        self.server.uploaded[_sha256(body)] = body
        self._send(200, {}, b"")

    def _chunk(self) -> bytes:
        """The next part of a body that is sent with chunked transfer coding."""
        part = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return part

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.server.repositories:
            self._json({"error": "You already created this model repo", "url": f"{self.server.endpoint}/{name}"}, 409)
            return
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        self.server.put(name, Repository({}, private=private))
        self._json({"url": f"{self.server.endpoint}/{name}"})

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        repository = self.server.repositories[name]
        files = dict(repository.files)
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                assert value["encoding"] == "base64"
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.uploaded[value["oid"]]
        changed = Repository(files, repository.private, repository.gated, repository.tags)
        self.server.put(name, changed)
        self.server.messages.append(lines[0]["value"]["summary"])
        commit = changed.commit
        url = f"{self.server.endpoint}/{name}/commit/{commit}"
        self._json({"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""})

    def _find(self, name: str, revision: str) -> Repository | None:
        """The repository at a revision, or None once the refusal was sent."""
        repository = self.server.repositories.get(name)
        allowed = self.headers.get("Authorization") == f"Bearer {self.server.token}"
        if repository is None:
            self._refuse(404, "RepoNotFound", "Repository not found")
        elif repository.private and not allowed:
            self._refuse(401, None, "Invalid username or password.")
        elif repository.gated and not allowed:
            self._refuse(403, "GatedRepo", "Access to this model is restricted")
        else:
            commit = repository.commit if revision == "main" else repository.tags.get(revision, revision)
            found = self.server.history.get((name, commit))
            if found is None:
                self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return found
        return None

    def _info(self, name: str, revision: str) -> None:
        if (repository := self._find(name, revision)) is not None:
            siblings = [{"rfilename": file} for file in repository.files]
            self._json({"id": name, "modelId": name, "sha": repository.commit, "private": repository.private,
                        "siblings": siblings, "tags": [], "downloads": 0, "likes": 0})  # fmt: skip

    def _tree(self, name: str, revision: str) -> None:
        if (repository := self._find(name, revision)) is None:
            return
        entries = []
        for file, content in repository.files.items():
            entry: dict[str, Any] = {"type": "file", "path": file, "size": len(content), "oid": _git_id(content)}
            if file.endswith(_LARGE):
                entry["lfs"] = {"oid": _sha256(content), "size": len(content), "pointerSize": 134}
            entries.append(entry)
        self._json(entries)

    def _resolve(self, name: str, revision: str, file: str) -> None:
        if (repository := self._find(name, revision)) is None:
            return
        content = repository.files.get(file)
        if content is None:
            self._refuse(404, "EntryNotFound", f"{file} does not exist", {"X-Repo-Commit": repository.commit})
            return
        headers = {"X-Repo-Commit": repository.commit, "Accept-Ranges": "bytes"}
        if file.endswith(_LARGE):
            headers |= {
                "X-Linked-Etag": f'"{_sha256(content)}"',
                "X-Linked-Size": str(len(content)),
                # Another host, like the Hub's own: redirects on one host are followed without a look at these headers.
                "Location": f"http://localhost:{self.server.server_port}/cdn/{_sha256(content)}",
            }
            self._send(302, headers, b"")
        else:
            self._send(200, headers | {"ETag": f'"{_git_id(content)}"'}, content)

    def _content(self, digest: str) -> None:
        everything = (content for repository in self.server.history.values() for content in repository.files.values())
        content = next(content for content in everything if _sha256(content) == digest)
        headers = {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted is None:
            self._send(200, headers, content)
            return
        start = int(wanted[1])
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(206, headers, content[start:])

    def _json(self, body: Any, status: int = 200) -> None:
        self._send(status, {"Content-Type": "application/json"}, json.dumps(body).encode())

    def _refuse(self, status: int, code: str | None, message: str, headers: dict[str, str] | None = None) -> None:
        codes = {"X-Error-Code": code} if code else {}
        body = json.dumps({"error": message}).encode()
        self._send(status, {**codes, "X-Error-Message": message, **(headers or {})}, body)

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.seen.path.startswith("/cdn/") and self.server.drops > 0:
            self.server.drops -= 1
            body = body[: len(body) // 2]
            self.close_connection = True
        self.wfile.write(body)
        self.seen.sent = len(body)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
