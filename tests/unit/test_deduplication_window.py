"""How many blocks must be remembered, by partitions and settings."""

import pytest

from pipeline.catalog import load_catalog
from pipeline.clickhouse.deduplication import window_blocks_needed, window_seconds_needed
from pipeline.config import Settings, WorkerSettings

_MIGRATED = 100_000  # what the migrations have


@pytest.mark.parametrize(
    ("partitions", "settings", "blocks"),
    [
        pytest.param(8, {}, 88_000, id="defaults"),
        pytest.param(16, {}, 176_000, id="twice the partitions"),
        pytest.param(8, {"lease_seconds": 16}, 176_000, id="twice the horizon"),
        pytest.param(8, {"insert_threads": 1}, 44_000, id="one thread"),
        pytest.param(8, {"insert_threads": 9}, 88_000, id="more threads than may be in flight"),
        pytest.param(8, {"insert_threads": 9, "batches_in_flight": 3}, 132_000, id="more in flight"),
    ],
)
def test_the_sum(partitions: int, settings: dict[str, float], blocks: int) -> None:
    """Inserts at once, over the time of the shortest, times the horizon."""
    assert window_blocks_needed(WorkerSettings.model_validate(settings), partitions) == blocks


def test_the_defaults_fit() -> None:
    """What topics.yaml, the settings and the migrations have goes together."""
    settings = Settings()
    for family in load_catalog(settings).families:
        assert window_blocks_needed(settings.worker, family.topic.partitions) <= _MIGRATED


def test_the_lease_ends_before_a_session() -> None:
    """While an insert may start, nobody else has the partition unless it was given up."""
    settings = Settings()
    assert window_seconds_needed(settings.worker) < settings.kafka.session_timeout_seconds
