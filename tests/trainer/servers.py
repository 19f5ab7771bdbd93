"""Servers on loopback that speak the protocols that sources are read by: web, S3 and the hub."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee00" * 5


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server that runs while the block does."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class Quiet(BaseHTTPRequestHandler):
    """Answers without a log; HTTP/1.1, as real servers do."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:
        """As GET, without the body."""
        self.do_GET()

    def do_GET(self) -> None:
        """By the subclass."""
        raise NotImplementedError

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """One whole response."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Web(Quiet):
    """Files by path; a number as the path is a status. `cut` breaks the connection in the middle of a body."""

    files: ClassVar[dict[str, bytes]]
    etag: ClassVar[bool] = True
    ranges: ClassVar[bool] = True
    cut: ClassVar[bool] = False

    def do_GET(self) -> None:
        """A file, or a part of it."""
        path = unquote(urlsplit(self.path).path).lstrip("/")
        if path.split(".")[0].isdigit():
            self.answer(int(path.split(".")[0]), b"no")
        elif path not in self.files:
            self.answer(404, b"not here")
        else:
            self._file(self.files[path])

    def _file(self, body: bytes) -> None:
        headers = {"ETag": f'"{hashlib.md5(body).hexdigest()}"'} if self.etag else {}
        wanted = self.headers.get("Range")
        if self.ranges:
            headers["Accept_Ranges"] = "bytes"
        if self.ranges and wanted:
            begin, _, end = wanted.removeprefix("bytes=").partition("-")
            part = body[int(begin) : int(end or len(body)) + 1]
            headers["Content_Range"] = f"bytes {begin}-{int(begin) + len(part) - 1}/{len(body)}"
            self.answer(206, part, **headers)
        elif self.cut and self.command == "GET":
            self.send_response(200)
            self.send_header("Content-Length", str(len(body) * 2))
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True
        else:
            self.answer(200, body, **headers)


class Hub(Quiet):
    """One public data set, ORG/NAME by `repo`, at one commit; `org/gated` and everything else is refused."""

    repo: ClassVar[str]
    files: ClassVar[dict[str, bytes]]

    def do_GET(self) -> None:
        """The hub's pages: what a data set is, its tree, its files."""
        path = unquote(urlsplit(self.path).path)
        if path.startswith(f"/api/datasets/{self.repo}"):
            self._about(path.removeprefix(f"/api/datasets/{self.repo}"))
        elif path.startswith(f"/datasets/{self.repo}/resolve/"):
            self._file(path.split("/", 6)[-1])
        elif "org/gated" in path:
            self.answer(403, b"gated", X_Error_Code="GatedRepo", X_Error_Message="ask for access")
        else:
            self.answer(404, b"no such repository", X_Error_Code="RepoNotFound")

    do_POST = do_GET  # noqa: N815 - paths-info is asked by POST

    def _about(self, rest: str) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        sent = self.rfile.read(length)
        parts = rest.strip("/").split("/", 2)
        if len(parts) > 1 and parts[1] not in ("main", COMMIT):
            self.answer(404, b"no such revision", X_Error_Code="RevisionNotFound")
        elif parts[0] == "tree":
            self._json(self._entries(parts[2] if len(parts) > 2 else ""))
        elif parts[0] == "paths-info":
            self._json(self._known(sent))
        else:
            names = [{"rfilename": name} for name in self.files]
            self._json(
                {"id": self.repo, "sha": COMMIT, "private": False, "gated": False, "siblings": names, "tags": []}
            )

    def _known(self, sent: bytes) -> list[dict[str, Any]]:
        wanted = json.loads(sent)["paths"] if sent.startswith(b"{") else []
        everything = {entry["path"]: entry for entry in self._entries("", recursive=True)}
        return [everything[path] for path in wanted if path in everything]

    def _entries(self, under: str, *, recursive: bool = False) -> list[dict[str, Any]]:
        recursive = recursive or "recursive=True" in self.path or "recursive=true" in self.path
        found: dict[str, dict[str, Any]] = {}
        for name, body in self.files.items():
            if not name.startswith(f"{under}/" if under else ""):
                continue
            folders = name.split("/")[:-1]
            for depth in range(1, len(folders) + 1):
                folder = "/".join(folders[:depth])
                found[folder] = {"type": "directory", "path": folder, "oid": "0" * 40, "size": 0}
            found[name] = {"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
        below = len(under.split("/")) + 1 if under else 1
        return [entry for path, entry in found.items() if recursive or len(path.split("/")) == below]

    def _file(self, name: str) -> None:
        if name not in self.files:
            self.answer(404, b"", X_Error_Code="EntryNotFound")
            return
        body = self.files[name]
        headers = {"ETag": f'"{hashlib.sha1(body).hexdigest()}"', "X_Repo_Commit": COMMIT, "Accept_Ranges": "bytes"}
        wanted = self.headers.get("Range")
        if wanted:
            begin, _, end = wanted.removeprefix("bytes=").partition("-")
            part = body[int(begin) : int(end or len(body)) + 1]
            self.answer(206, part, Content_Range=f"bytes {begin}-{int(begin) + len(part) - 1}/{len(body)}", **headers)
        else:
            self.answer(200, body, **headers)

    def _json(self, value: Any) -> None:
        self.answer(200, json.dumps(value).encode(), Content_Type="application/json")
