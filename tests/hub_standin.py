"""A stand-in of the Hugging Face hub on loopback: its documented routes, ranges, commits and etags, and how it can fail."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

Fault = Literal["gated", "private", "busy", "silent", "broken off", "forged"]
BROKEN_AFTER = 1000
"""Bytes of a file that come before the connection breaks off."""


@dataclass
class Repository:
    """The files of each commit, by name, and which commit each branch is."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def add(self, folder: Path, branch: str = "main") -> str:
        """Another commit, of what lies in the folder; returns its name."""
        files = {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}
        named = hashlib.sha1(repr([(name, hashlib.sha1(data).hexdigest()) for name, data in files.items()]).encode())
        self.commits[named.hexdigest()] = files
        self.branches[branch] = named.hexdigest()
        return named.hexdigest()


@dataclass
class Hub:
    """Repositories by name, what goes wrong with a file (by the end of its name), and what was asked for."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    endpoint: str = ""
    closing: threading.Event = field(default_factory=threading.Event)

    def repository(self, name: str) -> Repository:
        return self.repositories.setdefault(name, Repository())


def etag_of(name: str, data: bytes) -> str:
    """As the hub's: SHA-256 of what is stored as a large file, git's SHA-1 of other files."""
    if name.endswith(".safetensors"):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def serving() -> Iterator[Hub]:
    """The hub, for as long as it is served."""
    hub = Hub()

    class Handler(_Handler):
        served = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    served: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing is said on standard error."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.served.asked.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self._about("/".join(parts[2:4]), parts[4:], body)
        elif "resolve" in parts:
            at = parts.index("resolve")
            self._file("/".join(parts[:at]), parts[at + 1], "/".join(parts[at + 2 :]), body)
        else:
            self._send(404, b"{}", body)

    def _about(self, name: str, what: list[str], body: bool) -> None:
        repository = self.served.repositories.get(name)
        if repository is None:
            self._send(401, b'{"error": "Invalid username or password."}', body)
            return
        commit = self._commit(repository, what[1] if len(what) > 1 else "main")
        files = repository.commits.get(commit, {})
        if what[:1] == ["tree"]:
            below = "/".join(what[2:])
            listed = [{"type": "file", "path": path, "size": len(data), "oid": etag_of(path, data)} for path, data in files.items()
                      if not below or path.startswith(f"{below}/")]  # fmt: skip
            if listed:
                self._send(200, json.dumps(listed).encode(), body)
            else:
                self._send(404, b'{"error": "not found"}', body, {"X-Error-Code": "EntryNotFound"})
        else:
            info = {"id": name, "modelId": name, "sha": commit, "siblings": [{"rfilename": path} for path in files],
                    "private": False, "gated": False, "tags": [], "downloads": 0, "likes": 0}  # fmt: skip
            self._send(200, json.dumps(info).encode(), body)

    def _commit(self, repository: Repository, revision: str) -> str:
        return repository.branches.get(revision, revision)

    def _file(self, name: str, revision: str, path: str, body: bool) -> None:
        fault = next((fault for end, fault in self.served.faults.items() if f"{name}/{path}".endswith(end)), None)
        repository = self.served.repositories.get(name)
        if fault == "gated":
            self._send(401, b"{}", body, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."})
        elif fault == "private" or repository is None:
            self._send(401, b"{}", body, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif fault == "busy":
            self._send(429, b"{}", body, {"X-Error-Message": "rate limit"})
        elif fault == "silent":
            self.served.closing.wait(0.05)
            self.close_connection = True
        elif (commit := self._commit(repository, revision)) not in repository.commits:
            self._send(404, b"{}", body, {"X-Error-Code": "RevisionNotFound"})
        elif path not in repository.commits[commit]:
            self._send(404, b"{}", body, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        else:
            self._content(path, repository.commits[commit][path], commit, body, fault)

    def _content(self, path: str, data: bytes, commit: str, body: bool, fault: str | None) -> None:
        etag = etag_of(path, data)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes", "X-Linked-Size": str(len(data)),
                   "X-Linked-Etag": f'"{etag}"'}  # fmt: skip
        sent = bytes([*data[:-1], data[-1] ^ 1]) if fault == "forged" else data
        asked = self.headers.get("Range", "")
        status, start, stop = 200, 0, len(data)
        if asked.startswith("bytes="):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            status, start, stop = 206, int(first), min(len(data), int(last) + 1 if last else len(data))
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
        if fault == "broken off" and body:
            self.served.faults = {end: kind for end, kind in self.served.faults.items() if kind != fault}  # once
            self._send(status, sent[start:stop], body, headers, cut=BROKEN_AFTER)
        else:
            self._send(status, sent[start:stop], body, headers)

    def _send(
        self, status: int, data: bytes, body: bool, headers: dict[str, str] | None = None, cut: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data if cut is None else data[:cut])
        if cut is not None:
            self.close_connection = True
