"""Rights of the worker's user: tried with the statements that need them, and without a row.

A server answers to them as it would to the real ones, whatever its version and wherever the rights come from.
"""

from collections.abc import Iterable, Iterator, Mapping

import structlog
from clickhouse_driver import Client
from clickhouse_driver import errors as driver_errors

from pipeline.clickhouse.catching_up import synced
from pipeline.clickhouse.client import connect, describe, explained
from pipeline.clickhouse.codes import Code
from pipeline.clickhouse.deduplication import is_replicated
from pipeline.clickhouse.pinned_settings import INSERT_SETTINGS
from pipeline.config import ClickHouseSettings

PROBE = "probe"
"""Temporary table in which refused rows are tried."""

_SHORTLY = {"receive_timeout": 1}  # seconds to wait for a replica


def check_rights(settings: ClickHouseSettings, tables: Mapping[str, Mapping[str, str]]) -> None:
    """Check that the user may insert into the tables; log if it may not look rows up, or try refused rows.

    Only repeated micro-batches and rows that ClickHouse refuses need the latter, so the worker starts without them.

    Args:
        settings: server and login.
        tables: ClickHouse type of each column that inserts fill, by table and name.

    Raises:
        HaltError: the right to insert is missing; the message names it.
        UnavailableError: the server doesn't answer, or takes no rows for now.
    """
    for table, columns in tables.items():
        with explained(settings), connect(settings) as client:
            try_insert(client, table, columns)
            for refusal in _rarely_needed(client, settings, table, columns):
                structlog.get_logger("chimera.clickhouse").warning(
                    "a right is missing that repeated micro-batches or refused rows need; without it, they stop the "
                    "worker",
                    right=refusal,
                )


def missing_rights(
    settings: ClickHouseSettings, tables: Mapping[str, Mapping[str, str]]
) -> tuple[list[str], list[str]]:
    """Return what the server says of each right that is missing: of those to insert, and of those rarely needed.

    Args:
        settings: server and login.
        tables: as for `check_rights`.

    Raises:
        HaltError, UnavailableError: the server refuses something else, or doesn't answer.
    """
    inserts, others = list[str](), list[str]()
    for table, columns in tables.items():
        with explained(settings), connect(settings) as client:
            try:
                try_insert(client, table, columns)
            except driver_errors.ServerException as error:
                if error.code not in {Code.ACCESS_DENIED, Code.TOO_MANY_PARTS}:  # the latter comes after the rights
                    raise
                inserts += [describe(error)] if error.code == Code.ACCESS_DENIED else []
        with explained(settings), connect(settings) as client:
            others += _rarely_needed(client, settings, table, columns)
    return inserts, others


def _rarely_needed(client: Client, settings: ClickHouseSettings, table: str, columns: Iterable[str]) -> Iterator[str]:
    """Try what looks rows up and what finds refused rows; yield what the server says if the user may not do it."""
    looked_up = f"SELECT {_names(columns)} FROM `{table}` LIMIT 0"  # noqa: S608 (names of our own)
    caught_up = [synced(table)] if is_replicated(client, table) else []
    for statement in (looked_up, create_probe(settings, table), *caught_up):
        try:
            client.execute(statement, settings=_SHORTLY)
        except driver_errors.ServerException as error:
            if error.code == Code.TIMEOUT_EXCEEDED and caught_up:
                continue  # the user may wait for the replica, and that is what counts here
            if error.code != Code.ACCESS_DENIED:
                raise
            yield describe(error)


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
