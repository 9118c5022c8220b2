"""HTTP servers of tests: on a free port of this machine, with threads that hold up no end."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent: connections that break are the purpose."""


class Handler(BaseHTTPRequestHandler):
    """Answers what a test wants, and keeps silent."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Stay silent: the tests have their own account of what was asked."""

    def send(
        self,
        code: int,
        content: bytes,
        kind: str,
        headers: dict[str, str] | None = None,
        length: int | None = None,
    ) -> None:
        """Send an answer, whose length may be a lie."""
        self.send_response(code)
        for name, value in {"Content-Type": kind, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def serving(handler: type[Handler], closing: threading.Event) -> Iterator[str]:
    """Serve until the end of the block, which sets `closing`; give the DICOMweb root."""
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/dicom-web"
    finally:
        closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
