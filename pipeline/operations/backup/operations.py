"""BACKUP and RESTORE statements: started on the server, followed to their end, found again after a kill.

They run on the server by themselves (`ASYNC`), under an id of ours. So the death of this process ends none, and the
next one follows it by the id. The server forgets its operations when it restarts, and they end with it.
"""

import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.lookups import all_rows
from pipeline.config import ClickHouseSettings
from pipeline.errors import HaltError, UnavailableError

_LOOK = "SELECT toString(status), num_files, total_size, error FROM system.backups WHERE id = %(id)s"
_CODE = re.compile(r"Code: (\d+)\.?")
_POLL_SECONDS = (0.05, 1.0)
_S3_ATTEMPTS = ("backup_restore_s3_retry_attempts", "s3_retry_attempts")
UNKNOWN = "UNKNOWN"
CREATED, RESTORED = "BACKUP_CREATED", "RESTORED"
_RUNNING = frozenset({"CREATING_BACKUP", "RESTORING"})

ALREADY_THERE, NOT_FOUND, DAMAGED, S3_FAILED = 598, 599, 600, 499

Progress = Callable[[int], None]
"""Function that is called with the number of bytes that were written or read."""


class Operation(NamedTuple):
    """State of a BACKUP or RESTORE."""

    status: str
    """As in system.backups; UNKNOWN if the server doesn't know it."""
    files: int = 0
    size: int = 0
    """Bytes."""
    error: str = ""

    @property
    def running(self) -> bool:
        """True until it has ended."""
        return self.status in _RUNNING

    @property
    def brief_error(self) -> str:
        """Error on one line, without the server's stack trace."""
        return " ".join(self.error.partition("Stack trace")[0].split()).rstrip(",")

    @property
    def code(self) -> int | None:
        """ClickHouse's code of its failure."""
        match = _CODE.search(self.error)
        return int(match[1]) if match else None


class OperationError(HaltError):
    """A BACKUP or RESTORE that the server has ended with an error."""

    def __init__(self, message: str, code: int | None) -> None:
        super().__init__(message)
        self.code = code


def start(settings: ClickHouseSettings, statement: str, operation_id: str, *, s3_attempts: int, **options: str) -> None:
    """Start a statement on the server.

    Args:
        settings: server.
        statement: a BACKUP or RESTORE without its settings.
        operation_id: id to find it again.
        s3_attempts: attempts of each request to S3; by default, the server goes on for hours.
        options: more settings of the statement, in SQL.

    Raises:
        UnavailableError, HaltError: the server doesn't answer, or refuses.
    """
    chosen = {"id": f"'{operation_id}'", **options}
    pairs = ", ".join(f"{name} = {value}" for name, value in chosen.items())
    with explained(settings), connect(settings, database="") as client:
        attempts = dict.fromkeys(_S3_ATTEMPTS, s3_attempts)
        client.execute(f"{statement} SETTINGS {pairs} ASYNC", settings=attempts)


def look(settings: ClickHouseSettings, operation_id: str) -> Operation:
    """Return the state of an operation.

    Raises:
        UnavailableError, HaltError: the server doesn't answer, or refuses.
    """
    with explained(settings), connect(settings, database="") as client:
        return _state(client, operation_id)


def follow(
    settings: ClickHouseSettings, operation_id: str, what: str, progress: Progress = lambda _: None
) -> Operation:
    """Wait for the end of an operation.

    Args:
        settings: server.
        operation_id: its id.
        what: subject of the message if it fails.
        progress: called again and again meanwhile.

    Raises:
        OperationError: it failed.
        UnavailableError: the server doesn't answer, or has restarted meanwhile.
        HaltError: the server refuses.
    """
    pause, most = _POLL_SECONDS
    with explained(settings), connect(settings, database="") as client:
        while (state := _state(client, operation_id)).running:
            progress(state.size)
            time.sleep(pause)
            pause = min(pause * 1.5, most)
    if state.status == UNKNOWN:
        raise UnavailableError(
            f"{what}: ClickHouse at {settings.address} doesn't know it any more, as after a restart; run it again"
        )
    if state.status not in {CREATED, RESTORED}:
        message = state.brief_error or state.status
        raise OperationError(f"{what}: ClickHouse at {settings.address}: {message}", state.code)
    return state


def _state(client: Any, operation_id: str) -> Operation:
    rows = all_rows(client, _LOOK, {"id": operation_id})
    return Operation(*rows[0]) if rows else Operation(UNKNOWN)
