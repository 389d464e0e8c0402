"""`chimera replay --day` on real servers: days are made anew, and no row is lost or doubled."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from support.commands import Chimera
from support.events import rows
from support.processes import Worker, eventually, lag
from support.replays import UiEvents
from support.verifying import Verify

from pipeline.clickhouse.barrier import barrier, is_up
from pipeline.clickhouse.client import connect, kind_of
from pipeline.config import Settings
from pipeline.errors import FailureKind
from pipeline.operations.lineage.family_log import FamilyLog
from pipeline.operations.lineage.plan import make_plan
from pipeline.operations.lineage.rewrite import Rewrite, Rewritten
from pipeline.operations.lineage.sources import Order
from pipeline.operations.lineage.spans import Bound
from pipeline.transport.adapter.log_reader import LogReader

pytestmark = pytest.mark.integration

_DAY = date(2026, 1, 31)
_STAGING = "SELECT name FROM system.tables WHERE database = currentDatabase() AND name LIKE '%_rewrite_%'"
_SLOW = "INSERT INTO ui_events SELECT * FROM ui_events WHERE sleepEachRow(0.14) = 0 LIMIT 3 SETTINGS max_block_size = 1"
_OF_DAY = ("--day", str(_DAY))
_ROW = (
    "INSERT INTO ui_events (ts, session_id, _topic_id, _partition, _offset) "
    "SELECT toDateTime64('2026-01-31 12:00:00', 3, 'UTC'), generateUUIDv4(), any(_topic_id), 0, {offset} "
    "FROM ui_events "
    "SETTINGS insert_allow_materialized_columns = 1"
)


def test_a_day_is_made_anew_by_the_rules_of_today(log: UiEvents, replay: Chimera) -> None:
    """Rows above the committed offsets and below the log's start stay as they are."""
    log.produce(100)
    replay("--execute")
    with log.client() as client:
        client.execute("ALTER TABLE ui_events UPDATE user_agent = 'wrong' WHERE 1 SETTINGS mutations_sync = 2")
    assert log.common(rows(log.settings, "ui_events")) == 0
    log.topic.delete_records(10)
    log.topic.commit(40, partition=1)
    planned = replay(*_OF_DAY, "--json")
    assert (planned.facts["to_read"], planned.facts["estimated_rows"]) == (80, 80)
    done = replay(*_OF_DAY, "--execute", "--json")
    assert (done.returncode, done.facts["inserted"], done.facts["carried"]) == (0, 80, 20)
    assert (done.facts["removed"], done.facts["filled"], log.stored()) == (0, 0, (100, 100))
    log.topic.commit(50, partition=1)
    replay(*_OF_DAY, "--execute")
    assert log.common(rows(log.settings, "ui_events")) == 90


def test_rows_without_coordinates_are_kept_if_the_user_says_so(log: UiEvents, replay: Chimera) -> None:
    """Nobody knows which records they are of; without them, rows would be lost."""
    log.produce(20)
    replay("--execute")
    with log.client() as client:
        client.execute("INSERT INTO ui_events SELECT * FROM ui_events LIMIT 3")
    refused = replay(*_OF_DAY, "--execute")
    assert refused.returncode == 1
    assert "3 rows without coordinates" in refused.stderr
    kept = replay(*_OF_DAY, "--keep-unknown", "--execute", "--json")
    assert (kept.returncode, kept.facts["inserted"], kept.facts["carried"]) == (0, 20, 3)
    assert log.stored()[0] == 23


def test_a_row_whose_record_makes_none_is_removed_only_if_the_user_says_so(log: UiEvents, replay: Chimera) -> None:
    """The message names such a record."""
    log.produce(20)
    replay("--execute")
    log.send([b"no event"])
    log.commit()
    with log.client() as client:
        client.execute(_ROW.format(offset=10))
    refused = replay(*_OF_DAY, "--execute")
    assert refused.returncode == 1
    assert "1 rows of 2026-01-31 would be removed" in refused.stderr
    assert "offset 10 of partition 0" in refused.stderr
    assert log.stored() == (21, 21)
    removed = replay(*_OF_DAY, "--allow-removal", "--execute", "--json")
    assert (removed.returncode, removed.facts["removed"], log.stored()) == (0, 1, (20, 20))
    assert log.complete(rows(log.settings, "ui_events"))


def test_what_a_killed_rewrite_left_is_removed_by_the_next_replay(
    log: UiEvents, replay: Chimera, verify: Verify
) -> None:
    """A barrier would hold up the workers for ever, and a staging table takes space."""
    log.produce(20)
    replay("--execute")
    with log.client() as client:
        client.execute("ALTER TABLE ui_events MODIFY SETTING max_parts_in_total = 1")
        client.execute("CREATE TABLE ui_events_rewrite_0123abcd AS ui_events")
        client.execute("CREATE TABLE ui_events_rewrite_of_mine AS ui_events")
        assert "inserts into ui_events are held up" in replay().stdout
        assert "RESET SETTING max_parts_in_total" in verify("ui_events").out
        done = replay("--execute")
        assert "Removed a barrier" in done.stdout
        assert not is_up(client, "ui_events")
        assert not verify("ui_events", "--json").family["inserts_held_up"]
        assert client.execute(_STAGING) == [("ui_events_rewrite_of_mine",)]


def test_a_barrier_holds_up_inserts_and_waits_for_those_under_way(log: UiEvents, replay: Chimera) -> None:
    """The worker tries again what a barrier refuses."""
    log.produce(20)
    replay("--execute")
    with log.client() as client, log.client() as writer:
        with barrier(log.settings.clickhouse, client, "ui_events"):
            with pytest.raises(Exception, match="252") as refused:
                writer.execute("INSERT INTO ui_events SELECT * FROM ui_events LIMIT 1")
            assert kind_of(refused.value) is FailureKind.RETRY
        slow = threading.Thread(target=_insert_slowly, args=(log.settings,))
        slow.start()
        _await_insert(client)
        with barrier(log.settings.clickhouse, client, "ui_events"):
            assert log.stored()[0] == 23
        slow.join()


def _insert_slowly(settings: Settings) -> None:
    with connect(settings.clickhouse) as client:
        client.execute(_SLOW)


def _await_insert(client: Any) -> None:
    ours = "current_database = currentDatabase() AND query_kind = 'Insert'"  # an earlier test's may still run
    query = f"SELECT count() FROM system.processes WHERE {ours} AND read_rows > 0"
    eventually(lambda: client.execute(query)[0][0], "the insert has begun")


@pytest.mark.parametrize("use_barrier", [True, False], ids=["barrier", "settle"])
def test_days_are_swapped_under_load(
    log: UiEvents, environ: Mapping[str, str], tmp_path: Path, *, use_barrier: bool
) -> None:
    """A worker inserts meanwhile: each record has one row afterwards. Without a barrier, a fill finds what was lost."""
    family = log.family
    with Worker(environ, tmp_path / "worker.log") as worker:
        worker.wait_until_consuming()
        log.produce(300, committed=False)
        with _load(log), LogReader(log.settings.kafka, family.topic.name) as reader:
            source = FamilyLog(log.settings, family, reader)
            for _ in range(3):
                plan = make_plan(log.settings, Order(family, Bound(), Bound(), days=(_DAY,)), source)
                Rewrite(log.settings, plan, source, use_barrier=use_barrier).run(done := Rewritten())
                assert done.swapped
        worker.wait_for(lambda: lag(log.settings, family.topic.name) == 0, "all committed")
    total = len(log.events)
    assert log.stored() == (total, total)
    assert log.complete(rows(log.settings, "ui_events"))


@contextmanager
def _load(log: UiEvents) -> Iterator[None]:
    """Produce events all the time."""
    done = threading.Event()

    def produce() -> None:
        while not done.wait(0.05):
            log.produce(50, committed=False)

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
