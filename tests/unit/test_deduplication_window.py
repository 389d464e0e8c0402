"""Number of blocks that a deduplication window needs, by partitions and settings."""

import re

import pytest

from pipeline.catalog import load_catalog
from pipeline.clickhouse.deduplication import least_window_blocks, window_blocks_needed, window_seconds_needed
from pipeline.clickhouse.migrate import MIGRATIONS
from pipeline.clickhouse.session_stats import TABLE
from pipeline.config import KafkaSettings, Settings, WorkerSettings

_TABLES = re.compile(r"ALTER TABLE (\w+) .*?\bnon_replicated_deduplication_window = (\d+)", re.DOTALL)


def _migrated() -> dict[str, int]:
    """Blocks of each table's window, from the migrations."""
    texts = [file.read_text(encoding="utf-8") for file in sorted(MIGRATIONS.glob("*.sql"))]
    return {match[1]: int(match[2]) for text in texts if (match := _TABLES.search(text))}


def _settings(kafka: dict[str, float], worker: dict[str, float]) -> Settings:
    return Settings(kafka=KafkaSettings.model_validate(kafka), worker=WorkerSettings.model_validate(worker))


@pytest.mark.parametrize(
    ("partitions", "kafka", "worker", "blocks"),
    [
        pytest.param(4, {}, {}, 300_000, id="defaults"),
        pytest.param(8, {}, {}, 600_000, id="twice the partitions"),
        pytest.param(4, {"session_timeout_seconds": 85}, {}, 460_000, id="longer session"),
        pytest.param(4, {"heartbeat_interval_seconds": 8}, {}, 320_000, id="rarer heartbeats"),
        pytest.param(4, {}, {"lease_seconds": 15}, 340_000, id="longer lease"),
        pytest.param(4, {}, {"drain_seconds": 16}, 340_000, id="longer drain"),
        pytest.param(4, {}, {"insert_threads": 1}, 150_000, id="one thread"),
        pytest.param(4, {}, {"insert_threads": 9}, 300_000, id="more threads than may be in flight"),
        pytest.param(4, {}, {"insert_threads": 9, "batches_in_flight": 3}, 450_000, id="more in flight"),
    ],
)
def test_a_window_lasts_until_the_next_owner_has_repeated_the_insert(
    partitions: int, kafka: dict[str, float], worker: dict[str, float], blocks: int
) -> None:
    """Session timeout, takeover, lease and the server's patience come before a repeated insert."""
    assert window_blocks_needed(_settings(kafka, worker), partitions) == blocks


def test_the_defaults_fit() -> None:
    """The windows of the migrations are wide enough for topics.yaml and the default settings."""
    settings, migrated = Settings(), _migrated()
    catalog = load_catalog(settings)
    for family in catalog.families:
        assert window_blocks_needed(settings, family.topic.partitions) <= migrated[family.table]
    assert catalog.rollup
    partitions = catalog.rollup.source.topic.partitions
    assert window_blocks_needed(settings, partitions, at_once=1) <= migrated[TABLE]


@pytest.mark.parametrize(("partitions", "blocks"), [(1, 750), (64, 48_000), (500, 375_000)])
def test_a_worker_starts_with_a_share_for_each_partition(partitions: int, blocks: int) -> None:
    """Five blocks a second of each partition, twice, because half of a share may be written at once."""
    assert least_window_blocks(Settings(), partitions) == blocks


def test_a_window_is_longer_than_a_session() -> None:
    """A killed worker's partition has no owner until its session is over."""
    settings = Settings()
    assert window_seconds_needed(settings) > settings.kafka.session_timeout_seconds
