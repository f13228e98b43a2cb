"""Serves a folder of graphs to this machine alone: the page, and what circuit-tracer's page asks for. Nothing can be written.

That page expects `data/graph-metadata.json`, `graph_data/SLUG.json` and, of local features, `features/BASIS/NUMBER.json`; its own files
come from a checkout of it, where one is given. It loads scripts from the network by itself; `graph.html` does not.
"""

import json
import mimetypes
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from neuron_vs_sae.core.errors import FolderError, InputError

HOST = "127.0.0.1"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".js": "text/javascript",
    ".css": "text/css",
}


@dataclass(frozen=True)
class Served:
    """What is served: the folder of a study of graphs, and the folder of circuit-tracer's page, if any."""

    folder: Path
    page: Path | None = None

    def answer(self, path: str) -> tuple[bytes, str] | None:
        """(body, type) of a path of the server, None where there is nothing: no path leads out of the two folders."""
        parts = unquote(urlsplit(path).path).strip("/").split("/")
        if parts == ["data", "graph-metadata.json"]:
            return json.dumps({"graphs": [graph["metadata"] for graph in self._graphs()]}).encode(), _TYPES[".json"]
        if parts[0] == "graph_data" and len(parts) == 2:
            file = _inside(self.folder / "viewer", parts[1:])
            return None if file is None else (json.dumps(self._local(file)).encode(), _TYPES[".json"])
        if parts == [""]:
            start = None if self.page is None else _inside(self.page, ["index.html"])
            return _read(start or _inside(self.folder, ["graph.html"]))
        if parts == ["graph.html"] or parts[0] in ("viewer", "features"):
            return _read(_inside(self.folder, parts))
        return None if self.page is None else _read(_inside(self.page, parts))

    def _graphs(self) -> list[dict]:
        return [self._local(file) for file in sorted((self.folder / "viewer").glob("*.json"))]

    def _local(self, file: Path) -> dict:
        """A viewer's document, its features looked for on this server where the folder has them."""
        graph = json.loads(file.read_text(encoding="utf-8"))
        basis = next((f.name for f in sorted((self.folder / "features").glob("*")) if f"-{f.name}-" in file.name), None)
        if basis is not None:
            graph["metadata"]["scan"] = f"./features/{basis}"
        return graph


def server(folder: Path, port: int, page: Path | None = None) -> ThreadingHTTPServer:
    """A server of that folder, bound to 127.0.0.1 and not yet running; `port` 0 takes a free one.

    Raises `FolderError` where the folder holds no graphs, `InputError` for a page that is not there or a port that is taken.
    """
    if not (folder / "viewer").is_dir():
        raise FolderError(f"{folder} holds no graphs: write some with `nvs trace --out {folder}`")
    if page is not None and not (page / "index.html").is_file():
        raise InputError(
            f"{page} has no index.html: give the folder of circuit-tracer's page (circuit_tracer/frontend/assets)"
        )
    try:
        return ThreadingHTTPServer(
            (HOST, port), _handler(Served(folder.resolve(), None if page is None else page.resolve()).answer)
        )
    except OSError as error:
        raise InputError(
            f"cannot listen on port {port} ({error.strerror}): choose another (--port), or 0 for a free one"
        ) from error


def _handler(answer: Callable[[str], tuple[bytes, str] | None]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._respond(with_body=True)

        def do_HEAD(self) -> None:
            self._respond(with_body=False)

        def _respond(self, *, with_body: bool) -> None:
            # A page of another site that has its name point here must not read what is served.
            if self.headers.get("Host", "").rpartition(":")[0] not in (HOST, "localhost"):
                self.send_error(HTTPStatus.FORBIDDEN)
                return
            answered = answer(self.path)
            if answered is None:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            body, kind = answered
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            if with_body:
                self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Requests are not told."""

    return Handler


def _inside(folder: Path, parts: list[str]) -> Path | None:
    """The file of those names in the folder; None where there is none, or it lies elsewhere (`..`, a link)."""
    if any("\0" in part for part in parts):
        return None
    file = folder.joinpath(*parts).resolve()
    return file if file.is_relative_to(folder.resolve()) and file.is_file() else None


def _read(file: Path | None) -> tuple[bytes, str] | None:
    if file is None:
        return None
    kind = _TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    return file.read_bytes(), kind
