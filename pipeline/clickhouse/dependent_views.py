"""Check of the materialized views that read from the tables which the worker fills.

A repeated insert reaches the views of a table, too. Its rows are kept out of a view's target if that remembers
deduplication tokens; by default, a table that isn't replicated remembers none.
"""

import re
from collections.abc import Iterable

from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.deduplication import window_setting
from pipeline.clickhouse.lookups import all_rows
from pipeline.config import ClickHouseSettings
from pipeline.errors import HaltError

_TARGETS = """
    SELECT tables.name, view.database, view.name, target.database, target.name, target.engine, target.engine_full
    FROM system.tables AS tables
    ARRAY JOIN dependencies_database AS view_database, dependencies_table AS view_table
    INNER JOIN system.tables AS view ON view.database = view_database AND view.name = view_table
    INNER JOIN system.tables AS target
        ON target.database = view.target_database AND target.name = view.target_table
    WHERE tables.database = currentDatabase() AND view.engine = 'MaterializedView'
    ORDER BY ALL
"""


def check_views(settings: ClickHouseSettings, tables: Iterable[str]) -> None:
    """Check that the target of each materialized view that reads from these tables has a deduplication window.

    Views that the user may not see are left out.

    Raises:
        HaltError: a target has none.
        UnavailableError: the server doesn't answer.
    """
    with explained(settings), connect(settings) as client:
        found = all_rows(client, _TARGETS)
    checked = set(tables)
    for table, view_database, view, database, target, engine, definition in found:
        name = window_setting(engine)
        if table not in checked or (name and name.startswith("replicated")):
            continue  # a replicated table remembers tokens by default
        window = re.search(rf"\b{name} = (\d+)", definition) if name else None
        if window is None or not int(window[1]):
            raise HaltError(
                f"materialized view {view_database}.{view} at {settings.address} reads from {table} and fills "
                f"{database}.{target} ({engine}), which remembers no deduplication tokens; expected a MergeTree with "
                "non_replicated_deduplication_window over 0, since a repeated insert would reach the view twice: ALTER "
                f"TABLE {database}.`{target}` MODIFY SETTING non_replicated_deduplication_window = …"
            )
