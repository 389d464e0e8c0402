"""An issuer of OAuth tokens on this machine: signs tokens for one client, and publishes its key."""

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET, LIFE_SECONDS = "worker", "s3cret-of-the-client", 60


class Issuer:
    """Serves /token, for the client-credentials grant, and /jwks, in a thread. Use it as a context manager."""

    def __init__(self) -> None:
        self._key = RSAKey.generate_key(2048, {"kid": "1", "use": "sig", "alg": "RS256"})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.given = 0
        self.says_life = True
        self.revoked = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(self, path: str, authorization: str) -> tuple[int, Any]:
        if path == "/jwks":
            return 200, {"keys": [self._key.as_dict(private=False)]}
        login = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        if path != "/token" or authorization != f"Basic {login}" or self.revoked:
            return 401, {"error": "invalid_client"}
        self.given += 1
        now = int(time.time())
        claims = {"sub": CLIENT, "iss": "issuer", "aud": "kafka", "iat": now, "exp": now + LIFE_SECONDS}
        token = jwt.encode({"alg": "RS256", "kid": "1"}, claims, self._key)
        life = {"expires_in": LIFE_SECONDS} if self.says_life else {}
        return 200, {"access_token": token, "token_type": "Bearer", **life}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        answer = self._answer

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, body = answer(self.path, self.headers.get("Authorization", ""))
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            do_POST = do_GET  # noqa: N815 (the name that the class calls)

            def log_message(self, *_: Any) -> None:
                """Log nothing."""

        return Handler
