"""A mirror of the Hugging Face hub on this machine: the HTTP layout that huggingface_hub asks for, from folders."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = hashlib.sha1(b"a commit").hexdigest()


class Mirror(BaseHTTPRequestHandler):
    """Serves `root`/OWNER/NAME as one commit, which is main and v1."""

    root: Path
    asked: list[str]

    def do_GET(self) -> None:
        self.answer(body=True)

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def answer(self, *, body: bool) -> None:
        self.asked.append(f"{self.command} {self.path}")
        path = self.path.partition("?")[0]
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/([^/]+))?", path):
            files = self.files(match[1], match[3] or "main")
            if files is None:
                lacking = "Revision" if (self.root / match[1]).is_dir() else "Repo"
                return self.send(404, b"{}", {"X-Error-Code": f"{lacking}NotFound"}, body=body)
            if match[2] == "tree":
                listed = [{"type": "file", "path": p.name, "size": p.stat().st_size, "oid": etag(p)} for p in files]
                return self.send(200, json.dumps(listed).encode(), {}, body=body)
            info = {"id": match[1], "sha": COMMIT, "siblings": [{"rfilename": p.name} for p in files]}
            return self.send(200, json.dumps(info).encode(), {}, body=body)
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/([^/]+)", path):
            found = [p for p in self.files(match[1], match[2]) or [] if p.name == match[3]]
            if found:
                headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{etag(found[0])}"'}
                return self.send(200, found[0].read_bytes(), headers, body=body)
        return self.send(404, b"{}", {"X-Error-Code": "EntryNotFound"}, body=body)

    def files(self, repository: str, revision: str) -> list[Path] | None:
        folder = self.root / repository
        return sorted(folder.iterdir()) if folder.is_dir() and revision in ("main", "v1", COMMIT) else None

    def send(self, status: int, content: bytes, headers: dict[str, str], *, body: bool) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), "Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes()).hexdigest()


@contextmanager
def mirror(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve `root`; yields the address for HF_ENDPOINT, and the requests so far."""
    handler = type("Handler", (Mirror,), {"root": root, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.asked
    finally:
        server.shutdown()
        server.server_close()
