"""`chimera verify` run by a test, and the changes by hand that it has to find."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from pipeline.clickhouse.client import connect
from pipeline.config import Settings

_COLUMNS = "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = %(table)s"


class Ended(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def family(self) -> dict[str, Any]:
        """The numbers of the only family in its JSON object."""
        (family,) = json.loads(self.out)["families"]
        found: dict[str, Any] = family
        return found

    @property
    def listed(self) -> list[tuple[str, int, int, int]]:
        """Kind, partition, first and last offset of the listed differences."""
        return [(each["what"], each["partition"], each["first"], each["last"]) for each in self.family["listed"]]


Verify = Callable[..., Ended]


def run_sql(settings: Settings, *statements: str) -> None:
    """Run statements as a person does, and wait for their mutations."""
    own = {"mutations_sync": 1, "insert_allow_materialized_columns": 1, "insert_deduplicate": 0}
    with connect(settings.clickhouse) as client:
        for statement in statements:
            client.execute(statement, settings=own)


def delete(settings: Settings, table: str, where: str) -> None:
    """Delete rows."""
    run_sql(settings, f"ALTER TABLE {table} DELETE WHERE {where}")


def insert_again(settings: Settings, table: str, where: str, **changed: str) -> None:
    """Insert rows a second time, with other values in the columns of `changed`."""
    with connect(settings.clickhouse) as client:
        names = [name for (name,) in client.execute(_COLUMNS, {"table": table})]
    values = ", ".join(changed.get(name, name) for name in names)
    run_sql(settings, f"INSERT INTO {table} ({', '.join(names)}) SELECT {values} FROM {table} WHERE {where}")
