"""A server of fixed files on loopback: the page, a model and LiteRT.js."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from segformer_tf.edge.serve.litert_js import as_served, litert_files
from segformer_tf.errors import InputError

HOST = "127.0.0.1"
_NAMES = (HOST, "localhost")  # a page of another name could belong to somebody else (DNS rebinding)
_PAGE = Path(__file__).parent / "page"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
_BYTES = "application/octet-stream"
_HEADERS = {
    # Cross-origin isolation, without which browsers give WASM one thread.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    # The page reaches nothing but this server.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self' blob:; "
        "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class PageServer(ThreadingHTTPServer):
    """Serves the page for one model on loopback.

    Args:
        model: a ``.tflite``.
        litert: a ``node_modules`` with LiteRT.js.
        port: to listen on; 0 takes a free one.

    Raises:
        InputError: LiteRT.js is missing, or the port is taken.
    """

    daemon_threads = True

    def __init__(self, model: Path, *, litert: Path, port: int) -> None:
        page = {path.name: path for path in _PAGE.iterdir() if path.suffix in _TYPES}
        script = litert_files(litert)
        for path, file in script.items():
            if file.suffix == ".js":
                as_served(path, file.read_bytes())
        self._files: Mapping[str, Path] = {
            "": _PAGE / "index.html",
            **page,
            **script,
            "served.tflite": model,
        }
        self._served = json.dumps({"name": model.name}).encode()
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise InputError(f"--port {port} cannot be used ({error}); --port 0 takes a free one") from None

    @cached_property
    def url(self) -> str:
        """The page's address."""
        return f"http://{HOST}:{self.server_port}/"

    def answer(self, path: str) -> tuple[str, bytes] | None:
        """Type and content of a path on the page, or None; only files that were listed at the start."""
        if path == "served.json":
            return "application/json", self._served
        file = self._files.get(path)
        if file is None:
            return None
        return _TYPES.get(file.suffix, _BYTES), as_served(path, file.read_bytes())

    def handle_error(self, request: object, client_address: object) -> None:
        """A browser that hangs up is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    server_version, sys_version = "segformer", ""
    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        if self.headers.get("Host", "").split(":")[0] not in _NAMES:
            self._send(403, "text/plain", f"expected the host {' or '.join(_NAMES)}\n".encode())
            return
        try:
            found = self.server.answer(self.path.split("?")[0].removeprefix("/"))
        except (OSError, InputError):  # a file that was removed or replaced since
            found = None
        self._send(*((200, *found) if found else (404, "text/plain", b"no such file\n")))

    do_HEAD = do_GET

    def _send(self, status: int, content_type: str, content: bytes) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": content_type, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the page says what happens."""
