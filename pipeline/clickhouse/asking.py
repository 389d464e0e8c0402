"""Any query of a person, answered row by row; it can change nothing.

The setting `readonly` alone lets KILL QUERY, SYSTEM and INSERT INTO FUNCTION through. So a query must also be one that
the server's own parser takes within parentheses, where only a SELECT can be.
"""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline.clickhouse.client import connect, explained
from pipeline.config import ClickHouseSettings
from pipeline.errors import HaltError

_READ_ONLY = 2  # the query may choose settings, but not this one
_SETTING = "SELECT toUInt8(getSetting('readonly'))"
_COMMENTS = r"(?:\s|--[^\n]*\n|/\*.*?\*/)*"
_LOOKING = re.compile(rf"{_COMMENTS}(SHOW|DESCRIBE|DESC|EXISTS)\s", re.IGNORECASE | re.DOTALL)
_IN_PARENTHESES = "EXPLAIN AST SELECT * FROM (\n{query}\n)"  # parses the query and nothing else


@dataclass(frozen=True, slots=True)
class QueryAnswer:
    """The answer to a query."""

    columns: tuple[tuple[str, str], ...]
    """Name and ClickHouse type of each column."""
    rows: Iterator[tuple[Any, ...]]
    """The rows as they come; read them within the context."""


@contextmanager
def asking(settings: ClickHouseSettings, text: str) -> Iterator[QueryAnswer]:
    """Run a query that may read only, whatever the user's rights are.

    Args:
        settings: server, user and default database.
        text: one SELECT, SHOW, DESCRIBE or EXISTS; a semicolon may end it.

    Raises:
        HaltError, UnclearError: it is another statement, or the server refuses it.
        UnavailableError: the server doesn't answer.
    """
    query = text.rstrip("; \t\r\n")
    with ExitStack() as connected:
        with explained(settings):
            client: Any = connected.enter_context(connect(settings))
            if not _LOOKING.match(query):
                _check_select(settings, client, query)
            ((restricted,),) = client.execute(_SETTING)  # a user who is read-only may not set it
            limits = {} if restricted else {"readonly": _READ_ONLY}
            rows = client.execute_iter(query, with_column_types=True, settings=limits)
            columns: list[tuple[str, str]] = next(rows, [])
        yield QueryAnswer(tuple(columns), _explained(settings, rows))


def _explained(settings: ClickHouseSettings, rows: Iterator[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Explain failures of the rows alone: one of the caller, such as a closed pipe, isn't the server's."""
    with explained(settings):
        yield from rows


def _check_select(settings: ClickHouseSettings, client: Any, query: str) -> None:
    try:
        with explained(settings):
            client.execute(_IN_PARENTHESES.format(query=query))
    except HaltError as error:
        raise HaltError(f"expected one SELECT, SHOW, DESCRIBE or EXISTS without FORMAT: {error}") from error
