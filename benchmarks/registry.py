"""Schema registry that answers every request with one schema; the benchmarks don't measure the registry."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from pipeline.devstack.ports import HOST

SCHEMA_ID = 1


@contextmanager
def registry(subject: str, schema: Mapping[str, Any]) -> Iterator[str]:
    """Serve a schema under SCHEMA_ID while the context is open; the context gives the registry's URL."""
    answer = json.dumps({"subject": subject, "version": 1, "id": SCHEMA_ID, "schema": json.dumps(schema)}).encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            """Answer a look-up by id or by subject."""
            self.send_response(200)
            self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def do_POST(self) -> None:
            """Answer a registration or a look-up by content."""
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer((HOST, 0), Handler) as server:
        server.daemon_threads = True  # clients keep their connections open
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://{HOST}:{server.server_port}"
        finally:
            server.shutdown()
