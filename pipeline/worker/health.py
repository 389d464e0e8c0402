"""Health check of the container: `python -m pipeline.worker.health` asks the worker's /live on the configured address.

`python -m pipeline.worker.health monitor` asks the monitor's. Exit codes: 0 if it answers, 1 if it doesn't, 78 if a
setting is wrong.
"""

import http.client
import sys

from pipeline.config import WorkerSettings, load_settings
from pipeline.errors import ChimeraError, UnavailableError
from pipeline.tool_settings import MonitorSettings

_ANSWER_SECONDS = 4.0  # less than the timeout in the Dockerfile, so that the reason is printed
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104 (compared, nothing listens here)


def check_live(settings: WorkerSettings | MonitorSettings) -> None:
    """Ask the /live of the worker or the monitor.

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
    """Print the reason if the worker or the monitor isn't healthy; return the exit code."""
    try:
        settings = load_settings()
        check_live(settings.monitor if sys.argv[1:] == ["monitor"] else settings.worker)
    except ChimeraError as error:
        print(f"chimera: {error}", file=sys.stderr)  # noqa: T201 (Docker keeps the output of a health check)
        return 1 if isinstance(error, UnavailableError) else error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
