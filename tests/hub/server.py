"""A hub of its own on this machine: enough of the protocol for the real clients, over real sockets.

It serves repositories from memory by commit, branch and tag: their description, tree and paths, and their files with
ETags, commits and ranges; large files by way of a redirect, as the hub does. It can gate a repository, break
connections in the middle of a file, and remembers every request.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".bin", ".parquet")
"""Kept in large-file storage by the hub: another kind of ETag, and a redirect to where the bytes are."""

_API = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?")
_FILE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/(resolve|bytes)/([^/]+)/(.+)")

Files = Mapping[str, bytes]


@dataclass
class Repository:
    """Commits of files, and the branches and tags that name commits. `readers`: tokens that may read it, if gated."""

    commits: dict[str, Files]
    refs: dict[str, str]
    readers: tuple[str, ...] | None = None

    def commit(self, revision: str) -> str | None:
        named = self.refs.get(revision, revision)
        return named if named in self.commits else None


def repository(*history: Files, readers: tuple[str, ...] | None = None) -> Repository:
    """A repository with these commits, the oldest first, of which the newest is the branch main."""
    shas = [hashlib.sha1(f"{i} {sorted(files)}".encode()).hexdigest() for i, files in enumerate(history)]
    return Repository(dict(zip(shas, history, strict=True)), {"main": shas[-1]}, readers)


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    range: str | None
    token: bool
    status: int


@dataclass
class Hub:
    """The server, as a context manager; `repositories` by kind and name, as in ``models/org/name``."""

    repositories: dict[str, Repository]
    breaks: dict[str, int] = field(default_factory=dict)
    """By file name: no response goes on beyond this byte of the file, after which the connection is closed."""
    broken_once: dict[str, int] = field(default_factory=dict)
    """The same, for the next response only."""
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> Hub:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.hub = self  # type: ignore[attr-defined]
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Refuse every connection from now on."""
        self._server.shutdown()
        self._server.server_close()

    def gets(self, name: str) -> list[Request]:
        """The requests for the bytes of a file."""
        return [request for request in self.requests if request.method == "GET" and request.path.endswith(name)]


def etag(name: str, content: bytes) -> str:
    """The hub's: SHA-256 of what is in large-file storage, git's blob id of anything else."""
    if name.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        return self.server.hub  # type: ignore[attr-defined]

    def log_message(self, format: str, *args: Any) -> None:
        """The hub's list of requests is the log."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.form = parse_qs(self.rfile.read(int(self.headers.get("Content-Length", 0))).decode())
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        api = re.fullmatch(
            r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)(?:/(.*))?)?", path
        )
        file = re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/(resolve|bytes)/([^/]+)/(.+)", path)
        if api:
            self._api(*api.groups())
        elif file:
            kind = (file[1] or "models/").rstrip("/")
            self._file(f"{kind}/{file[2]}", *file.groups()[2:])
        else:
            self._refuse(404, "", "not found")

    def _api(self, kind: str, name: str, what: str | None, revision: str | None, below: str | None) -> None:
        found = self._find(f"{kind}/{name}", revision or "main")
        if found is None:
            return
        repo, sha = found
        files = repo.commits[sha]
        if what == "tree":
            recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() == "true"
            self._json(list(_tree(files, below or "", recursive=recursive)))
        elif what == "paths-info":
            there = {entry["path"]: entry for entry in _tree(files, "", recursive=True)}
            self._json([there[path] for path in self.form.get("paths", []) if path in there])
        else:
            siblings = [{"rfilename": path} for path in sorted(files)]
            gated = "manual" if repo.readers is not None else False
            self._json({"id": name, "sha": sha, "siblings": siblings, "private": False, "gated": gated, "tags": []})

    def _file(self, name: str, how: str, revision: str, path: str) -> None:
        found = self._find(name, revision)
        if found is None:
            return
        repo, sha = found
        if repo.readers is not None and self._token not in repo.readers:
            status, said = (403, "ask for access") if self._token else (401, "you must be authenticated")
            return self._refuse(status, "GatedRepo", f"Access to {name} is restricted: {said}")
        if path not in repo.commits[sha]:
            return self._refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": sha})
        content = repo.commits[sha][path]
        facts = {"X-Repo-Commit": sha, "ETag": f'"{etag(path, content)}"', "Accept-Ranges": "bytes"}
        if how == "resolve" and path.endswith(LARGE):
            linked = {"X-Linked-Size": str(len(content)), "X-Linked-ETag": facts["ETag"]}
            location = f"{self.hub.endpoint}{urlsplit(self.path).path.replace('/resolve/', '/bytes/', 1)}"
            return self._send(302, b"", {**facts, **linked, "Location": location})
        self._bytes(path, content, facts)

    def _bytes(self, path: str, content: bytes, facts: dict[str, str]) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        end = min(int(asked[2]) + 1, len(content)) if asked and asked[2] else len(content)
        if asked and start >= len(content):
            return self._send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        if asked:
            facts["Content-Range"] = f"bytes {start}-{end - 1}/{len(content)}"
        stop = end
        if self.command == "GET":
            name = path.rsplit("/", 1)[-1]
            stop = min(end, self.hub.broken_once.pop(name, end), self.hub.breaks.get(name, end))
        self._send(206 if asked else 200, content[start:end], facts, keep=max(0, stop - start))

    def _find(self, name: str, revision: str) -> tuple[Repository, str] | None:
        repo = self.hub.repositories.get(name)
        if repo is None:
            # Without a token the hub does not tell what is private from what is not there.
            self._refuse(404 if self._token else 401, "RepoNotFound", "Repository not found")
            return None
        sha = repo.commit(revision)
        if sha is None:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return repo, sha

    @property
    def _token(self) -> str | None:
        return self.headers.get("Authorization", "").removeprefix("Bearer ") or None

    def _refuse(self, status: int, code: str, message: str, more: dict[str, str] | None = None) -> None:
        self._send(status, message.encode(), {"X-Error-Code": code, "X-Error-Message": message, **(more or {})})

    def _json(self, content: Any) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str], *, keep: int | None = None) -> None:
        request = Request(self.command, self.path, self.headers.get("Range"), self._token is not None, status)
        self.hub.requests.append(request)
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[:keep])
        self.close_connection = keep is not None and keep < len(body)


def _tree(files: Files, below: str, *, recursive: bool) -> Iterator[dict[str, Any]]:
    """The files and folders of a folder, with those of folders in it or without."""
    folders = {str(folder) for path in files for folder in PurePosixPath(path).parents} - {"."}
    for path in sorted({*files, *folders}):
        parent = path.rpartition("/")[0]
        if parent == below or (recursive and path.startswith(f"{below}/" if below else "")):
            yield _entry(path, files[path]) if path in files else {"type": "directory", "path": path, "oid": "0" * 40}


def _entry(path: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": etag("", content)}
    if path.endswith(LARGE):
        entry["lfs"] = {"oid": etag(path, content), "size": len(content), "pointerSize": 134}
    return entry
