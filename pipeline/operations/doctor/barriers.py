"""Barriers that killed replays have left: they hold up inserts into a table until somebody removes them."""

from collections.abc import Iterator

from pipeline.catalog import Catalog
from pipeline.clickhouse.barrier import is_up, remove_left
from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.session_stats import TABLE
from pipeline.clickhouse.table_lock import TableLock, TakenError
from pipeline.config import ClickHouseSettings
from pipeline.operations.doctor.results import CheckResult, fail, ok, warn


def barriers(settings: ClickHouseSettings, catalog: Catalog, *, mend: bool) -> Iterator[CheckResult]:
    """Look for barriers; a table whose lock is held has one for a good reason.

    Args:
        settings: server and database.
        catalog: families, whose tables are looked at, beside session_stats.
        mend: remove them; the lock is held meanwhile, so that no replay is disturbed.
    """
    tables = [*(family.table for family in catalog.families), TABLE]
    with explained(settings), connect(settings) as client:
        raised = [table for table in tables if is_up(client, table)]
    for table in raised:
        yield _left(settings, table, mend=mend)
    if not raised:
        yield ok("barriers", "none holds up inserts")


def _left(settings: ClickHouseSettings, table: str, *, mend: bool) -> CheckResult:
    try:
        with TableLock(settings, table, patience_seconds=1.0) as lock:
            if not mend:
                return fail(
                    "barriers",
                    f"inserts into {table} are held up: a killed replay or repair has left its barrier",
                    "chimera doctor --mend, or the next replay of the table",
                )
            lock.check()
            remove_left(settings, table)
            return ok("barriers", f"removed the one on {table}: inserts go on")
    except TakenError:
        return warn("barriers", f"inserts into {table} are held up by a replay or repair that runs")
