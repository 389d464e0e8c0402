"""Health check of the container: `python -m pipeline.worker.health` asks the worker's /live on the configured address.

Exit codes: 0 if the worker answers, 1 if it doesn't, 78 if a setting is wrong.
"""

import http.client
import sys

from pipeline.config import WorkerSettings, load_settings
from pipeline.errors import ChimeraError, UnavailableError

_ANSWER_SECONDS = 4.0  # less than the timeout in the Dockerfile, so that the reason is printed
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104 (compared, nothing listens here)


def check_live(settings: WorkerSettings) -> None:
    """Ask the worker's /live.

    Raises:
        UnavailableError: there is no answer, or its status isn't 200.
    """
    host = _LOOPBACK.get(settings.web_host, settings.web_host)
    connection = http.client.HTTPConnection(host, settings.web_port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", "/live")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise UnavailableError(f"{host}:{settings.web_port}/live: {error!r}") from None
    finally:
        connection.close()
    if status != http.HTTPStatus.OK:
        raise UnavailableError(f"{host}:{settings.web_port}/live: expected status 200, got {status}")


def main() -> int:
    """Print the reason if the worker isn't healthy; return the exit code."""
    try:
        check_live(load_settings().worker)
    except ChimeraError as error:
        print(f"chimera: {error}", file=sys.stderr)  # noqa: T201 (Docker keeps the output of a health check)
        return 1 if isinstance(error, UnavailableError) else error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
