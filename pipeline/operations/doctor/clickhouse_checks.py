"""Checks of ClickHouse: the server, its clock, migrations, the user, tables, grants, windows and disks."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from pipeline.catalog import Catalog
from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.contract import check_rollup, check_tables
from pipeline.clickhouse.lookups import all_rows
from pipeline.clickhouse.migrate import pending
from pipeline.clickhouse.pinned_settings import check_user
from pipeline.clickhouse.rights import missing_rights
from pipeline.clickhouse.table_checks import TABLE_CHECKS
from pipeline.config import ClickHouseSettings, Settings
from pipeline.errors import ChimeraError
from pipeline.operations.doctor.results import CheckResult, fail, ok, warn
from pipeline.worker.preflight import check_windows

_CLOCK_SECONDS = 1.0
_FULL, _NEARLY_FULL = 0.05, 0.15  # free share of a disk
_GRANT = "chimera access sql, run by an administrator"
_GIB = 1024**3
_DISKS = "SELECT name, free_space, total_space FROM system.disks WHERE total_space > 0 ORDER BY name"


def server(settings: ClickHouseSettings) -> Iterator[CheckResult]:
    """Log in, and ask for the version and the time zone."""
    with explained(settings), connect(settings, database="") as client:
        ((version, zone),) = all_rows(client, "SELECT version(), serverTimezone()")
    yield ok("clickhouse", f"{settings.address}, version {version}, user {settings.user}")
    if zone not in {"UTC", "Etc/UTC"}:
        yield warn(
            "clickhouse",
            f"its time zone is {zone}: session_stats shows hours and days in it",
            "run it in UTC, or write toDate(hour, 'UTC') in queries",
        )


def clock(settings: ClickHouseSettings) -> Iterator[CheckResult]:
    """Compare the server's clock with this machine's, to half of an answer's time."""
    with explained(settings), connect(settings, database="") as client:
        all_rows(client, "SELECT 1")  # connects
        before = datetime.now(UTC).timestamp()
        ((there,),) = all_rows(client, "SELECT toUnixTimestamp64Milli(now64(3))")
        after = datetime.now(UTC).timestamp()
    difference = there / 1000 - (before + after) / 2
    said = f"ClickHouse is {abs(difference):.1f} s {'ahead' if difference > 0 else 'behind'} of this machine"
    if abs(difference) > _CLOCK_SECONDS + (after - before) / 2:
        yield warn("clocks", said, "synchronise the clocks of brokers, ClickHouse and workers")
    else:
        yield ok("clocks", "ClickHouse and this machine agree to the second")


def migrations(settings: ClickHouseSettings) -> Iterator[CheckResult]:
    """List what `chimera migrate` would do."""
    try:
        files = pending(settings)
    except ChimeraError:
        if settings.user == "default":
            raise
        yield warn(
            "migrations", f"user {settings.user} can't read which were applied", "chimera migrate, as chimera_admin"
        )
        return
    for file in files:
        yield fail("migrations", f"{file.name} is pending", "chimera migrate")
    if not files:
        yield ok("migrations", "all are applied")


def user(settings: ClickHouseSettings) -> Iterator[CheckResult]:
    """Check that the user may write, and may use the settings of inserts."""
    check_user(settings)
    yield ok("clickhouse user", f"{settings.user} may write, with the settings of inserts")


def tables(settings: Settings, catalog: Catalog) -> Iterator[CheckResult]:
    """Compare tables with schemas, make the worker's other checks of tables, and try its rights."""
    clickhouse = settings.clickhouse
    columns = check_tables(clickhouse, catalog.families)
    if settings.rollup.enabled and catalog.rollup:
        columns |= check_rollup(clickhouse)
    yield ok("tables", f"{len(columns)} fit their schemas")
    yield from _grants(clickhouse, columns)
    for check in TABLE_CHECKS:
        check.run(clickhouse, columns)
        yield ok("tables", check.holds)


def _grants(settings: ClickHouseSettings, columns: Mapping[str, Mapping[str, str]]) -> Iterator[CheckResult]:
    """Try what the worker does, without rows, as the worker does before it starts."""
    inserts, others = missing_rights(settings, columns)
    for refusal in inserts:
        yield fail("grants", refusal, _GRANT)
    for refusal in others:
        yield warn("grants", f"needed for repeated micro-batches and refused rows: {refusal}", _GRANT)
    if not inserts and not others:
        yield ok("grants", f"{settings.user} may do what the worker does with {len(columns)} tables")


def windows(settings: Settings, catalog: Catalog) -> Iterator[CheckResult]:
    """Check that each table remembers the tokens of its inserts for long enough."""
    check_windows(settings, catalog)
    yield ok("windows", "each table remembers its inserts for long enough")


def disks(settings: ClickHouseSettings) -> Iterator[CheckResult]:
    """Compare free with total space of each disk."""
    try:
        with explained(settings), connect(settings, database="") as client:
            found = all_rows(client, _DISKS)
    except ChimeraError:
        yield warn("disk", f"user {settings.user} may not see system.disks", "ask as an administrator")
        return
    for name, free, total in found:
        said = f"{name}: {free / _GIB:,.0f} of {total / _GIB:,.0f} GiB free"
        if free < total * _FULL:
            yield fail("disk", said, "give ClickHouse more space, or drop old days")
        elif free < total * _NEARLY_FULL:
            yield warn("disk", said, "give ClickHouse more space, or drop old days")
        else:
            yield ok("disk", said)
