"""The worker's check of its tables, on a real server."""

import pytest

from pipeline.catalog import load_catalog
from pipeline.clickhouse.client import connect
from pipeline.clickhouse.contract import check_rollup, check_tables
from pipeline.clickhouse.migrate import migrate
from pipeline.config import Settings
from pipeline.devstack.ports import free_port
from pipeline.errors import HaltError, UnavailableError

pytestmark = pytest.mark.integration


def test_migrated_tables_are_accepted(settings: Settings) -> None:
    """The tables that `chimera migrate` creates fit all families and the rollup."""
    migrate(settings.clickhouse)
    check_tables(settings.clickhouse, load_catalog(settings).families)
    check_rollup(settings.clickhouse)


def test_a_database_without_tables_halts_and_says_what_to_do(settings: Settings) -> None:
    """Before the first migration, the error names the table and the command that creates it."""
    with pytest.raises(HaltError, match=r"bench_runs.*missing; create it with `chimera migrate`"):
        check_tables(settings.clickhouse, load_catalog(settings).families)
    with pytest.raises(HaltError, match=r"session_stats.*missing; create it with `chimera migrate`"):
        check_rollup(settings.clickhouse)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        pytest.param("ALTER TABLE episodes DROP COLUMN title", "no column for field title", id="a missing column"),
        pytest.param("ALTER TABLE episodes ADD COLUMN x UInt8", "column x: expected a field", id="an extra column"),
        pytest.param("ALTER TABLE episodes MODIFY COLUMN title UUID", "expected in .* uuid", id="another type"),
        pytest.param(
            "ALTER TABLE session_stats MODIFY COLUMN error_rate Float64",
            "session_stats .*: column error_rate: expected Float32, found Float64",
            id="another type in session_stats",
        ),
    ],
)
def test_a_table_that_was_changed_by_hand_halts(settings: Settings, statement: str, expected: str) -> None:
    """The error names the table and the difference."""
    migrate(settings.clickhouse)
    with connect(settings.clickhouse) as client:
        client.execute(statement)

    def check() -> None:
        check_tables(settings.clickhouse, load_catalog(settings).families)
        check_rollup(settings.clickhouse)

    with pytest.raises(HaltError, match=expected):
        check()


def test_no_server_is_unavailable(settings: Settings) -> None:
    """The error of a server that doesn't answer is UnavailableError and gives its address."""
    nowhere = settings.clickhouse.model_copy(update={"port": free_port()})
    with pytest.raises(UnavailableError, match=nowhere.address):
        check_tables(nowhere, load_catalog(settings).families)
