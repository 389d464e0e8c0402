"""The check of the deduplication windows, on real tables."""

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions
from support.processes import eventually, prepare

from pipeline.catalog import load_catalog
from pipeline.clickhouse.client import connect
from pipeline.clickhouse.deduplication import check_deduplication_windows, window_blocks_needed
from pipeline.clickhouse.migrate import migrate
from pipeline.config import Settings
from pipeline.errors import HaltError
from pipeline.worker.preflight import check_windows

pytestmark = pytest.mark.integration

_NAME = "non_replicated_deduplication_window"
_PARTITIONS = 2  # of each topic in tests


def _check(settings: Settings, partitions: int = _PARTITIONS) -> None:
    catalog = load_catalog(settings)
    check_deduplication_windows(settings, catalog, {family.topic.name: partitions for family in catalog.families})


def test_migrated_tables_are_wide_enough(settings: Settings) -> None:
    """The windows of the migrations are wide enough for the default settings."""
    migrate(settings.clickhouse)
    _check(settings)


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
    needed = window_blocks_needed(settings, _PARTITIONS)
    values = {"name": _NAME, "too_few": needed - 1}
    with connect(settings.clickhouse) as client:
        client.execute(f"ALTER TABLE episodes {change.format(**values)}")
        found = rf"episodes at .*: {_NAME} is {live.format(**values)}"
        expected = rf"{found}, expected at least {needed} .*LEASE_SECONDS=5, .*DRAIN_SECONDS=6;"
        with pytest.raises(HaltError, match=expected):
            _check(settings)
        client.execute(f"ALTER TABLE episodes MODIFY SETTING {_NAME} = {needed}")
    _check(settings)


def test_the_partitions_on_the_broker_count(settings: Settings) -> None:
    """A topic with more partitions than topics.yaml declares needs a wider window; the check asks the broker."""
    prepare(settings)
    with pytest.raises(HaltError, match="for 64 partitions"):
        _check(settings, 64)
    check_windows(settings, load_catalog(settings))
    topic = load_catalog(settings).family("episodes").topic.name
    admin = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    (grown,) = admin.create_partitions([NewPartitions(topic, 16)]).values()
    grown.result(30)
    with pytest.raises(HaltError, match=r"episodes at .* is 400000, expected at least 1200000 for 16 partitions"):
        eventually(lambda: check_windows(settings, load_catalog(settings)), "the broker's new partitions")


def test_a_session_that_is_longer_than_the_window_halts(settings: Settings) -> None:
    """The window of the report's case, 7,000 blocks with a session timeout of 85 s, is refused."""
    migrate(settings.clickhouse)
    kafka = settings.kafka.model_copy(update={"session_timeout_seconds": 85.0})
    with connect(settings.clickhouse) as client:
        client.execute(f"ALTER TABLE episodes MODIFY SETTING {_NAME} = 7000")
    with pytest.raises(HaltError, match="SESSION_TIMEOUT_SECONDS=85"):
        _check(settings.model_copy(update={"kafka": kafka}))
