"""session_stats follows a replay of ui_events."""

import pytest
from support.commands import Chimera
from support.replays import PARTITIONS, UiEvents
from support.session_stats import DAY, HOUR_MS, snapshot_at_rest

from pipeline.catalog import load_catalog
from pipeline.config import Settings
from pipeline.kafka.topics import TopicAdmin
from pipeline.rollup.audit import Audit
from pipeline.rollup.horizon import Horizon
from pipeline.rollup.store import SnapshotStore
from pipeline.rollup.verify import verify

pytestmark = pytest.mark.integration

_MIDNIGHT = 491_616
"""Hours from 1970 to the midnight in which the sample begins."""


@pytest.fixture
def log(settings: Settings) -> UiEvents:
    log = UiEvents(settings)
    log.produce(200)
    return log


def _close(log: UiEvents, before: int) -> None:
    """Have the rollup closed all hours before this one."""
    rollup = load_catalog(log.settings).rollup
    assert rollup
    topic_id = TopicAdmin(log.settings.kafka).ids([log.topic.name])[log.topic.name]
    store = SnapshotStore(log.settings.kafka, rollup.state)
    for number in range(PARTITIONS):
        # Behind the end of the log, or the broker's clock would close all hours.
        store.write(snapshot_at_rest(topic_id, number, log.ends[number] - 1, before * HOUR_MS))


def _differences(log: UiEvents) -> int:
    with log.client() as client:
        return verify(Audit(client, "ui_events"), Horizon(float("inf"))).found.total()


def test_closed_hours_are_brought_in_line(log: UiEvents, replay: Chimera) -> None:
    """By a fill and by a rewrite; open hours stay the rollup's."""
    _close(log, _MIDNIGHT + 2)
    filled = replay("--execute", "--json")
    assert filled.returncode == 0, filled.stderr
    stats = filled.facts["session_stats"][str(DAY)]
    assert stats["rows"] > 0
    assert (stats["closed_hours"], stats["open_hours"]) == (1, 0)
    assert _differences(log) == 0
    with log.client() as client:
        client.execute("ALTER TABLE session_stats UPDATE events_count = 0 WHERE 1 SETTINGS mutations_sync = 2")
    assert _differences(log) > 0
    made = replay("--day", str(DAY), "--execute", "--json")
    assert made.facts["session_stats"][str(DAY)]["rows"] > 0
    assert _differences(log) == 0


def test_open_hours_are_left_to_the_rollup(log: UiEvents, replay: Chimera) -> None:
    """It goes by the log, not by the table."""
    _close(log, _MIDNIGHT)
    filled = replay("--execute", "--json")
    stats = filled.facts["session_stats"][str(DAY)]
    assert (stats["closed_hours"], stats["open_hours"], stats["rows"]) == (0, 1, 0)
    assert _differences(log) > 0


def test_what_is_left_to_do_is_said(log: UiEvents, replay: Chimera) -> None:
    """Because the user wants it so, or because the rollup hasn't stored a snapshot yet."""
    left = replay("--from", "0:0", "--to", "1:0", "--no-rollup", "--execute")
    assert left.returncode == 0
    assert f"run `chimera rollup repair --day {DAY} --execute`" in left.stderr
    failed = replay("--execute")
    assert failed.returncode == 0
    assert "because: " in failed.stderr
    assert "no snapshot of the rollup yet" in failed.stderr
    with log.client() as client:
        assert client.execute("SELECT count() FROM session_stats") == [(0,)]
