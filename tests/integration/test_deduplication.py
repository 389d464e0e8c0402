"""The check of the deduplication windows, on real tables."""

import pytest

from pipeline.catalog import load_catalog
from pipeline.clickhouse.client import connect
from pipeline.clickhouse.deduplication import check_deduplication_windows, window_blocks_needed
from pipeline.clickhouse.migrate import migrate
from pipeline.config import Settings
from pipeline.errors import HaltError

pytestmark = pytest.mark.integration

_NAME = "non_replicated_deduplication_window"
_PARTITIONS = 2  # of each topic in tests


def test_migrated_tables_are_wide_enough(settings: Settings) -> None:
    """The windows of the migrations are wide enough for the default settings."""
    migrate(settings.clickhouse)
    check_deduplication_windows(settings, load_catalog(settings))


@pytest.mark.parametrize(
    ("change", "live"),
    [
        pytest.param("RESET SETTING {name}", "not set", id="server default"),
        pytest.param("MODIFY SETTING {name} = {too_few}", "{too_few}", id="one too few"),
    ],
)
def test_a_window_that_is_too_narrow_halts(settings: Settings, change: str, live: str) -> None:
    """The error gives the table, its setting, the value and the expected value; the expected value is accepted."""
    migrate(settings.clickhouse)
    needed = window_blocks_needed(settings.worker, _PARTITIONS)
    values = {"name": _NAME, "too_few": needed - 1}
    with connect(settings.clickhouse) as client:
        client.execute(f"ALTER TABLE episodes {change.format(**values)}")
        expected = rf"episodes at .*: {_NAME} is {live.format(**values)}, expected at least {needed} .*LEASE_SECONDS=5;"
        with pytest.raises(HaltError, match=expected):
            check_deduplication_windows(settings, load_catalog(settings))
        client.execute(f"ALTER TABLE episodes MODIFY SETTING {_NAME} = {needed}")
    check_deduplication_windows(settings, load_catalog(settings))
