"""Rights of the worker's user: tried with the statements that need them, and without a row.

A server answers to them as it would to the real ones, whatever its version and wherever the rights come from.
"""

from collections.abc import Iterable, Mapping

from clickhouse_driver import Client

from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.pinned_settings import INSERT_SETTINGS
from pipeline.config import ClickHouseSettings

PROBE = "probe"
"""Temporary table in which refused rows are tried."""


def check_rights(settings: ClickHouseSettings, tables: Mapping[str, Mapping[str, str]]) -> None:
    """Check that the user may insert into the tables, look rows up, and try refused rows.

    Args:
        settings: server and login.
        tables: ClickHouse type of each column that inserts fill, by table and name.

    Raises:
        HaltError: a right is missing; the message names it.
        UnavailableError: the server doesn't answer, or takes no rows for now.
    """
    for table, columns in tables.items():
        with explained(settings), connect(settings) as client:
            try_insert(client, table, columns)
            client.execute(f"SELECT {_names(columns)} FROM `{table}` LIMIT 0")  # noqa: S608 (names of our own)
            client.execute(create_probe(settings, table))


def try_insert(client: Client, table: str, columns: Iterable[str]) -> None:
    """Insert no rows: the server refuses what it would refuse for rows, and stores nothing.

    Raises:
        clickhouse_driver.errors.Error, OSError, EOFError: the insert failed.
    """
    client.execute(f"INSERT INTO `{table}` ({_names(columns)}) VALUES", [], settings=dict(INSERT_SETTINGS))


def create_probe(settings: ClickHouseSettings, table: str) -> str:
    """Return the SQL of a temporary table with the columns and constraints of another, which keeps no rows."""
    return f"CREATE TEMPORARY TABLE `{PROBE}` ENGINE=Null AS `{settings.database}`.`{table}`"


def _names(columns: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in columns)
