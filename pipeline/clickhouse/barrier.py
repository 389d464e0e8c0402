"""A barrier that keeps inserts into one table waiting for a moment, while a part of the table is exchanged.

The setting `max_parts_in_total = 1` makes the server refuse inserts with TOO_MANY_PARTS, which the worker tries again.
Inserts that began before are waited for. A process that is killed leaves the barrier behind; nothing is lost then, but
inserts wait until the next command removes it. The barrier stays while the server still copies or exchanges rows.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.clickhouse.client import connect, execute_again, explained
from pipeline.clickhouse.lookups import all_rows
from pipeline.config import ClickHouseSettings
from pipeline.errors import UnavailableError

_SETTING = "max_parts_in_total"
_RAISE = f"ALTER TABLE `{{table}}` MODIFY SETTING {_SETTING} = 1"
_REMOVE = f"ALTER TABLE `{{table}}` RESET SETTING {_SETTING}"
_DEFINITION = "SELECT engine, engine_full FROM system.tables WHERE database = currentDatabase() AND name = %(table)s"
# Any mention of the table counts: other writers may write its name in another way.
_RUNNING = """
SELECT count() FROM system.processes
WHERE query_kind = 'Insert' AND position(query, %(table)s) > 0 AND query_id != queryID()
"""
_PARTS = "SELECT count() FROM system.parts WHERE database = currentDatabase() AND table = %(table)s AND active"
# Statements of a rewrite or a repair; those of a process that was killed, or that lost its connection, may go on.
_EXCHANGES = """
SELECT count() FROM system.processes
WHERE query_kind IN ('Alter', 'Insert') AND match(query, %(exchange)s) AND query_id != queryID()
"""
_EXCHANGE = r"ALTER TABLE `?{table}`? (REPLACE|DROP) PARTITION|INSERT INTO `?{table}_re(write|pair)_[0-9a-f]{{8}}\b"
_POLL_SECONDS = 0.01
_RETRY_SECONDS = 0.2
_PATIENCE_SECONDS = 30.0  # a stopped writer's insert is ended by the server within 6 s


def works(client: Any, table: str) -> bool:
    """Tell whether a barrier holds up all inserts: the setting is one server's own, and counts parts.

    Args:
        client: connected, with the table's database as default.
        table: name of a table of the MergeTree family.

    Raises:
        clickhouse_driver.errors.Error, OSError, EOFError: a query failed.
    """
    engine = all_rows(client, _DEFINITION, {"table": table})[0][0]
    shared = engine.startswith(("Replicated", "Shared"))
    return not shared and bool(all_rows(client, _PARTS, {"table": table})[0][0])


@contextmanager
def barrier(settings: ClickHouseSettings, client: Any, table: str) -> Iterator[None]:
    """Hold up inserts into a table within the context, which begins when none is under way.

    Args:
        settings: server and database.
        client: connected, with the table's database as default.
        table: its name; nobody else may have a barrier on it.

    Raises:
        UnavailableError: an insert doesn't end, and nothing was changed; or a copy or an exchange that failed for this
            process still runs, and the barrier stays.
        clickhouse_driver.errors.Error, OSError, EOFError: a query failed.
    """
    try:
        client.execute(_RAISE.format(table=table))
        _await_inserts(settings, client, table)
        yield
    except BaseException:
        _await_exchange(settings, table)
        execute_again(settings, _REMOVE.format(table=table))
        raise
    execute_again(settings, _REMOVE.format(table=table))


def _await_inserts(settings: ClickHouseSettings, client: Any, table: str) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while all_rows(client, _RUNNING, {"table": table})[0][0]:
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"table {settings.database}.{table} at {settings.address}: an insert hasn't ended in "
                f"{_PATIENCE_SECONDS:.0f} s; nothing was changed, try again"
            )
        time.sleep(_POLL_SECONDS)


def remove_left(settings: ClickHouseSettings, table: str) -> bool:
    """Remove a barrier that a killed process left; call it under the table's lock. True if there was one.

    Raises:
        HaltError, UnavailableError: the server refuses, or doesn't answer.
    """
    with explained(settings), connect(settings) as client:
        if not is_up(client, table):
            return False
    _await_exchange(settings, table)
    execute_again(settings, _REMOVE.format(table=table))
    return True


def _await_exchange(settings: ClickHouseSettings, table: str) -> None:
    """Wait until no copy and no exchange of a table's rows runs.

    Raises:
        HaltError: the server refuses.
        UnavailableError: one doesn't end, or the server doesn't answer; the barrier stays.
    """
    deadline, exchange = time.monotonic() + _PATIENCE_SECONDS, _EXCHANGE.format(table=table)
    while True:
        try:
            with explained(settings), connect(settings) as client:
                if not all_rows(client, _EXCHANGES, {"exchange": exchange})[0][0]:
                    return
            left = "a copy or an exchange of its rows still runs"
        except UnavailableError as error:
            left = str(error)
        if time.monotonic() > deadline:
            raise UnavailableError(
                f"table {settings.database}.{table} at {settings.address}: {left}; inserts stay held up, so that no "
                "row is lost: run the same command again, it removes the barrier"
            )
        time.sleep(_RETRY_SECONDS)


def is_up(client: Any, table: str) -> bool:
    """Tell whether a table has a barrier.

    Raises:
        clickhouse_driver.errors.Error, OSError, EOFError: the query failed.
    """
    definition = all_rows(client, _DEFINITION, {"table": table})
    return bool(definition) and f"{_SETTING} = 1" in [
        setting.strip() for setting in definition[0][1].partition(" SETTINGS ")[2].split(",")
    ]
