"""A table with the columns, keys and settings of another one."""

import re
from typing import Any

from pipeline.clickhouse.lookups import all_rows

_ENGINE = "SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = %(table)s"
_PATHS = r"\('(?:[^'\\]|\\.)*', '(?:[^'\\]|\\.)*'(?:, )?"  # in Keeper, and of the replica
_REPLICATED = re.compile(rf"^Replicated(\w*MergeTree){_PATHS}")


def create_like(client: Any, name: str, like: str, *, if_missing: bool = False) -> None:
    """Create a table like another one, on this server alone: of a replicated table it isn't a replica.

    Its partitions may replace those of the other table. ClickHouse refuses two replicated tables with one path in
    Keeper, and a path with {uuid} outside of ON CLUSTER.

    Args:
        client: connected, with the database of both as default.
        name: of the new table.
        like: of the other table.
        if_missing: True to leave a table of that name as it is.

    Raises:
        clickhouse_driver.errors.Error, OSError, EOFError: a query failed.
    """
    engine = all_rows(client, _ENGINE, {"table": like})
    plain, replicated = _REPLICATED.subn(r"\1(", engine[0][0]) if engine else ("", 0)
    client.execute(
        f"CREATE TABLE {'IF NOT EXISTS ' if if_missing else ''}`{name}` AS `{like}`"
        + (f" ENGINE = {plain}" if replicated else "")
    )
