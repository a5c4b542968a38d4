"""The small web server of the pages for phones: a table of addresses below a secret token, and nothing else.

No path is ever turned into a file name: what is not in the table does not exist.  Every body has a limit, and in a
benchmark only the browser that came first is listened to.
"""

from __future__ import annotations

import gzip
import http.server
import json
import secrets
import ssl
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from softedge.progress import say

BINARY = "application/octet-stream"
KINDS = {".html": "text/html; charset=utf-8", ".css": "text/css", ".js": "text/javascript", ".mjs": "text/javascript"}
KINDS |= {".wasm": "application/wasm", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png"}
_IDLE_S = 60.0  # a connection that says nothing for so long is dropped
# Scripts from this server only; WebAssembly and its thread workers (which onnxruntime-web starts from blobs) may run.
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval' blob:; worker-src 'self' blob:; connect-src 'self' "
    "blob:; style-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    # These two isolate the page from others, which browsers require for threads.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    # Not "no-referrer": browsers then hide the origin of the page's own farewell, which is checked.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Refused(Exception):
    """A request that is not granted: HTTP status and the reason that the page shows."""

    def __init__(self, status: int, reason: str):
        super().__init__(reason)
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class Page:
    """Something to GET.  body: the bytes, or a function that makes them when asked."""

    kind: str
    body: bytes | Callable[[], bytes]
    compressed: bytes | None = None

    @classmethod
    def shrunk(cls, kind: str, body: bytes) -> Page:
        """With a gzip copy: WebAssembly shrinks to a quarter."""
        return cls(kind, body, gzip.compress(body, 4, mtime=0))

    @classmethod
    def of(cls, path: Path) -> Page:
        """A file as it is now, its type by its ending."""
        kind = KINDS.get(path.suffix.lower(), BINARY)
        return cls.shrunk(kind, path.read_bytes()) if path.suffix == ".wasm" else cls(kind, path.read_bytes())


@dataclass(frozen=True)
class Inbox:
    """Something to POST to.  at_most: bytes.  take: body -> the answer, as JSON; raises Refused."""

    at_most: int
    take: Callable[[bytes], Mapping[str, Any]]


class Server:
    """Serves ``pages`` and ``inboxes`` (name -> entry) below ``/TOKEN/`` until it is closed."""

    def __init__(
        self, host: str, port: int = 0, certificate: tuple[str, str] | None = None, *, one_browser: bool = True
    ):
        self.one_browser = one_browser  # whether only the first browser may post
        self.token = secrets.token_urlsafe(12)
        self.pages: dict[str, Page] = {}
        self.inboxes: dict[str, Inbox] = {}
        self.owner = ""  # the session of the first browser
        self._claim = threading.Lock()
        self._http = _Threads((host, port), _handler_of(self))
        self._http.daemon_threads = True
        self.host, self.port = host, self._http.server_address[1]
        self.scheme = "http"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            # The handshake happens in the connection's own thread: a silent client must not block the others.
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
            self.scheme = "https"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The address to open, token included."""
        return f"{self.scheme}://{self.host}:{self.port}/{self.token}/"

    def name_of(self, path: str) -> str | None:
        """The table's key for a request path; None when the token is wrong (compared in constant time)."""
        token, slash, name = path.removeprefix("/").partition("/")
        if not slash or not secrets.compare_digest(token.encode(), self.token.encode()):
            return None
        return name

    def claim(self, session: str) -> None:
        """The first session owns the token from now on; Refused for any other (unless several may post)."""
        with self._claim:
            if not session.isalnum() or not 16 <= len(session) <= 64:
                raise Refused(403, "this request has no session")
            if not self.one_browser:
                return
            if not self.owner:
                self.owner = session
            if not secrets.compare_digest(self.owner, session):
                raise Refused(409, "this address was already used by another browser; start the benchmark again")

    def close(self) -> None:
        """Stop serving and free the port."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(timeout=5)


class _Threads(http.server.ThreadingHTTPServer):
    _refusal_shown = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that disconnects or rejects the certificate is not a bug: no traceback, at most one line."""
        error = sys.exception()
        if not isinstance(error, OSError):  # TLS errors are among these
            super().handle_error(request, client_address)
        elif isinstance(error, ssl.SSLError) and not self._refusal_shown:
            self._refusal_shown = True
            say(f"a browser at {client_address[0]} refused the certificate; accept its warning and reload the page")


def _handler_of(server: Server) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(_Handler):
        bench = server

    return Handler


class _Handler(http.server.BaseHTTPRequestHandler):
    bench: Server
    protocol_version = "HTTP/1.1"
    server_version = "softedge"
    sys_version = ""
    timeout = _IDLE_S

    def do_GET(self) -> None:
        self._answer(self._page)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, respond: Callable[[str, str], None]) -> None:
        address = urlsplit(self.path)
        session = parse_qs(address.query).get("s", [""])[0]
        name = self.bench.name_of(address.path)
        try:
            if name is None:
                raise Refused(404, "not found")
            respond(name, session)
        except Refused as refusal:
            self.close_connection = True  # the rest of a refused body is not read
            self._send(refusal.status, "application/json", json.dumps({"error": refusal.reason}).encode())
        except (TimeoutError, ConnectionError, ssl.SSLError):  # the browser went away; the device notices by itself
            self.close_connection = True

    def _page(self, name: str, session: str) -> None:
        page = self.bench.pages.get(name)
        if page is None:
            raise Refused(404, "not found")
        if page.compressed is not None and "gzip" in self.headers.get("Accept-Encoding", ""):
            self._send(200, page.kind, page.compressed, {"Content-Encoding": "gzip"})
        else:
            self._send(200, page.kind, page.body if isinstance(page.body, bytes) else page.body())

    def _post(self, name: str, session: str) -> None:
        inbox = self.bench.inboxes.get(name)
        if inbox is None:
            raise Refused(404, "not found")
        origin = self.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != self.headers.get("Host"):
            raise Refused(403, "this request comes from another page")
        self.bench.claim(session)
        length = self.headers.get("Content-Length", "")
        if not length.isdigit():
            raise Refused(411, "a length is required")
        if int(length) > inbox.at_most:
            raise Refused(413, f"{length} bytes are more than the {inbox.at_most} that are taken here")
        body = self.rfile.read(int(length))
        if len(body) != int(length):
            raise Refused(400, "the body ended early")
        self._send(200, "application/json", json.dumps(inbox.take(body)).encode())

    def _send(self, status: int, kind: str, body: bytes, more: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        headers = {**HEADERS, "Content-Type": kind, "Content-Length": str(len(body)), **(more or {})}
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: the terminal belongs to the progress bar, and the address holds the token."""
