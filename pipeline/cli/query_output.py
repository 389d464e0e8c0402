"""Forms of an answer to a query: a table, CSV and JSON Lines."""

import csv
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

import click
import orjson
from rich.table import Table
from rich.text import Text

from pipeline.cli.columns import print_columns
from pipeline.cli.terminal import terminal

Columns = Sequence[tuple[str, str]]
Rows = Iterable[Sequence[Any]]

_NUMBER = re.compile(r"^(Nullable\()?(U?Int|Float|Decimal)")


def _print_table(columns: Columns, rows: Rows) -> None:
    """Print a table that fits the terminal, or columns of whole values elsewhere."""
    console = terminal()
    cells = [[_as_text(value) for value in row] for row in rows]
    if console.is_terminal:
        table = Table()
        for name, type_name in columns:
            table.add_column(Text(name), justify="right" if _NUMBER.match(type_name) else "left", overflow="fold")
        for row in cells:
            table.add_row(*map(Text, row))
        console.print(table)
    else:
        print_columns([[name for name, _ in columns], *cells])
    click.echo(f"{len(cells):,} {'row' if len(cells) == 1 else 'rows'}", err=True)


def _print_csv(columns: Columns, rows: Rows) -> None:
    """Print CSV with a header, as RFC 4180 has it; NULL is an empty field."""
    writer = csv.writer(sys.stdout)
    writer.writerow([name for name, _ in columns])
    writer.writerows(["" if value is None else _as_csv(value) for value in row] for row in rows)


def _print_json(columns: Columns, rows: Rows) -> None:
    """Print one object per row; decimals are numbers with all their digits, infinities and NaN are null."""
    names = [name for name, _ in columns]
    for row in rows:
        click.echo(orjson.dumps({name: _as_json(value) for name, value in zip(names, row, strict=True)}))


FORMATS: Mapping[str, Callable[[Columns, Rows], None]] = {
    "table": _print_table,
    "csv": _print_csv,
    "json": _print_json,
}


def _as_text(value: Any) -> str:
    """Return a value without control characters, which could steer a terminal."""
    text = "NULL" if value is None else str(value)
    return "".join(char if char.isprintable() else "?" for char in text)


def _as_csv(value: Any) -> str:
    return _as_json_text(value) if isinstance(value, (list, dict, tuple)) else str(value)


def _as_json_text(value: Any) -> str:
    return orjson.dumps(_as_json(value)).decode()


def _as_json(value: Any) -> Any:
    match value:
        case None | str() | bool() | float() | date():
            return value  # orjson writes NaN and infinities as null, times in ISO 8601
        case int() | Decimal():
            return orjson.Fragment(format(value, "f") if isinstance(value, Decimal) else str(value))
        case dict():
            return {str(name): _as_json(item) for name, item in value.items()}
        case list() | tuple():
            return [_as_json(item) for item in value]
    return str(value)
