"""Asks a web server on this machine."""

import http.client

from pipeline.devstack.ports import HOST


def get(port: int, path: str, *, seconds: float) -> tuple[int, bytes]:
    """Return status and body of a page; `seconds` is the longest wait for each part of the answer.

    Raises:
        OSError, http.client.HTTPException: there is no answer, or it isn't HTTP.
    """
    connection = http.client.HTTPConnection(HOST, port, timeout=seconds)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def is_ok(port: int, path: str, *, seconds: float) -> bool:
    """Return whether a page answers with status 200."""
    try:
        return get(port, path, seconds=seconds)[0] == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
