"""Catching up: a replica may lag behind, and not show rows yet that another one has stored.

A look-up would take them for missing, and they would be inserted a second time. So before each look-up of a replicated
or shared table, the replica fetches what the others had stored by then; see docs/replicated.md.
"""

from typing import Any

from clickhouse_driver import errors as driver_errors

from pipeline.clickhouse.codes import Code
from pipeline.clickhouse.deduplication import is_replicated
from pipeline.errors import UnavailableError

PATIENCE_SECONDS = 10
"""Longest wait for a replica to catch up in one attempt."""


def catch_up(client: Any, table: str, patience_seconds: int = PATIENCE_SECONDS) -> None:
    """Return when this replica shows all rows that any replica had stored at the call; at once for other tables.

    Args:
        client: connected, with the table's database as default. Its user needs SYSTEM SYNC REPLICA on the table.
        table: its name.
        patience_seconds: longest wait.

    Raises:
        UnavailableError: the replica hasn't caught up in that time; another attempt may succeed.
        clickhouse_driver.errors.Error, OSError, EOFError: a query failed.
    """
    if not is_replicated(client, table):
        return
    try:
        client.execute(synced(table), settings={"receive_timeout": patience_seconds})
    except driver_errors.ServerException as error:
        if error.code != Code.TIMEOUT_EXCEEDED:
            raise
        raise UnavailableError(
            f"table {table}: this replica hasn't fetched in {patience_seconds} s what others have stored, so it can't "
            "tell which rows are there; it is tried again until it has: see system.replication_queue, and bring a "
            "replica back that is away, or remove one that is lost with SYSTEM DROP REPLICA"
        ) from error


def synced(table: str) -> str:
    """Return the statement that waits for the fetches of a table."""
    return f"SYSTEM SYNC REPLICA `{table}` LIGHTWEIGHT"
