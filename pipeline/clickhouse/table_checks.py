"""Checks of the tables that the worker fills, beside their columns and windows: declared once, in their order.

The worker makes them at its start, `chimera family check` and `chimera doctor` before. A running worker repeats some.
"""

from collections.abc import Callable, Collection
from typing import NamedTuple

from pipeline.clickhouse.dependent_views import check_views
from pipeline.clickhouse.engines import check_engines, check_sorting_keys
from pipeline.clickhouse.row_policies import check_row_policies
from pipeline.config import ClickHouseSettings


class TableCheck(NamedTuple):
    """One check of tables."""

    holds: str
    """What is so if it passes."""
    run: Callable[[ClickHouseSettings, Collection[str]], None]
    """Gets the server and the names of tables; raises HaltError for a table that the worker refuses."""
    repeated: bool = False
    """True if a running worker makes it again: before each takeover, so the server must answer it at once."""


TABLE_CHECKS = (
    TableCheck("the engine stores a row once", check_engines, repeated=True),
    TableCheck("replaced rows can be looked for by the sorting key", check_sorting_keys),
    TableCheck("views that read from a table store a row once", check_views),
    TableCheck("no row policy hides rows", check_row_policies),
)
"""All of them."""
