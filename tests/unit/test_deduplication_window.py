"""Number of blocks that a deduplication window needs, by partitions and settings."""

import pytest

from pipeline.catalog import load_catalog
from pipeline.clickhouse.deduplication import window_blocks_needed, window_seconds_needed
from pipeline.config import Settings, WorkerSettings

_MIGRATED = 100_000  # blocks, from the migrations


@pytest.mark.parametrize(
    ("partitions", "settings", "blocks"),
    [
        pytest.param(8, {}, 88_000, id="defaults"),
        pytest.param(16, {}, 176_000, id="twice the partitions"),
        pytest.param(8, {"lease_seconds": 16}, 176_000, id="twice the time"),
        pytest.param(8, {"insert_threads": 1}, 44_000, id="one thread"),
        pytest.param(8, {"insert_threads": 9}, 88_000, id="more threads than may be in flight"),
        pytest.param(8, {"insert_threads": 9, "batches_in_flight": 3}, 132_000, id="more in flight"),
    ],
)
def test_window_blocks_needed(partitions: int, settings: dict[str, float], blocks: int) -> None:
    """The number is concurrent inserts, divided by the shortest insert's time, multiplied by the needed time."""
    assert window_blocks_needed(WorkerSettings.model_validate(settings), partitions) == blocks


def test_the_defaults_fit() -> None:
    """The windows of the migrations are wide enough for topics.yaml and the default settings."""
    settings = Settings()
    for family in load_catalog(settings).families:
        assert window_blocks_needed(settings.worker, family.topic.partitions) <= _MIGRATED


def test_the_window_is_shorter_than_a_session() -> None:
    """While an insert may arrive, no other worker owns the partition unless this one gave it up."""
    settings = Settings()
    assert window_seconds_needed(settings.worker) < settings.kafka.session_timeout_seconds
