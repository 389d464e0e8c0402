"""`chimera replay --day` on real servers, when rows, offsets or dead letters change while it runs: none is lost."""

import threading
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from support.commands import Chimera, command
from support.dlq_topic import made_up, reject
from support.events import events
from support.kafka_topic import Topic
from support.processes import eventually
from support.replays import UiEvents

from pipeline.catalog import load_catalog
from pipeline.clickhouse.barrier import is_up, remove_left
from pipeline.errors import UnavailableError
from pipeline.operations.lineage.family_log import FamilyLog
from pipeline.operations.lineage.plan import RemovalError, make_plan
from pipeline.operations.lineage.rewrite import Rewrite, Rewritten
from pipeline.operations.lineage.sources import Order
from pipeline.operations.lineage.spans import Bound
from pipeline.operations.lineage.staging import Staging
from pipeline.producer.encode import Encoder
from pipeline.transport.adapter.log_reader import LogReader

pytestmark = pytest.mark.integration

_DAY, _NEXT_DAY = date(2026, 1, 31), date(2026, 2, 1)
_OF_DAY = ("--day", str(_DAY))
_FORGET = "INSERT INTO ui_events SELECT * FROM ui_events WHERE toDate(ts) = '{day}'"
_FORGOTTEN = "DELETE FROM ui_events WHERE toDate(ts) = '{day}' AND _topic_id != toUUID('{zero}')"
_ZERO = "00000000-0000-0000-0000-000000000000"
_COPY = (
    "INSERT INTO ui_events (ts, session_id, _topic_id, _partition, _offset) "
    "SELECT {ts}, session_id, _topic_id, _partition, {offset} FROM ui_events WHERE {chosen} "
    "SETTINGS insert_allow_materialized_columns = 1"
)
_LATER = _COPY.format(ts="ts + INTERVAL 1 DAY", offset="_offset", chosen=f"toDate(ts) = '{_DAY}'")
_SLOW_COPY = "INSERT INTO ui_events_rewrite_0123abcd SELECT * FROM ui_events WHERE sleepEachRow(0.1) = 0"
_COPIES = (
    "SELECT count() FROM system.processes WHERE current_database = currentDatabase() AND query_kind = 'Insert' "
    "AND query LIKE 'INSERT INTO ui_events_r%'"
)


def _rewrite(
    log: UiEvents, before: Callable[[], None] = lambda: None, begin: Bound | None = None, **how: Any
) -> Rewritten:
    """Plan a rewrite of the day, let something happen, and make it."""
    with LogReader(log.settings.kafka, log.family.topic.name) as reader:
        source = FamilyLog(log.settings, log.family, reader)
        plan = make_plan(log.settings, Order(log.family, begin or Bound(), Bound(), days=(_DAY,)), source)
        before()
        done = Rewritten()
        Rewrite(log.settings, plan, source, **how).run(done)
        return done


def _after_the_copy(monkeypatch: pytest.MonkeyPatch, act: Callable[[], Any]) -> None:
    """Let something happen when the rows from before the first offset are copied, and inserts aren't held up yet."""
    removed = Staging.removed

    def look(staging: Staging, *arguments: Any) -> Any:
        act()
        return removed(staging, *arguments)

    monkeypatch.setattr(Staging, "removed", look)


def test_days_beside_the_one_that_is_made_anew_stay_as_they_are(log: UiEvents, replay: Chimera) -> None:
    """Rows without coordinates on the day before look missing, and aren't."""
    log.produce(10)
    encoder = Encoder(log.family)
    later = [event | {"ts": event["ts"] + 86_400_000} for event in log.events]
    log.send([encoder.encode(event).value for event in later])
    log.commit()
    replay("--execute")
    with log.client() as client:
        client.execute(_FORGET.format(day=_NEXT_DAY))
        client.execute(_FORGOTTEN.format(day=_NEXT_DAY, zero=_ZERO))
    done = replay(*_OF_DAY, "--execute", "--json")
    assert (done.returncode, done.facts["inserted"], done.facts["filled"]) == (0, 10, 0)
    assert log.stored()[0] == 20


def test_a_day_whose_rows_are_all_of_another_day_is_empty_afterwards(log: UiEvents, replay: Chimera) -> None:
    """The rows of the records that moved are filled in on their new day."""
    log.produce(10)
    replay("--execute")
    with log.client() as client:
        client.execute(_LATER)
        client.execute(f"ALTER TABLE ui_events DROP PARTITION '{_DAY}'")
    done = replay("--day", str(_NEXT_DAY), "--allow-removal", "--execute", "--json")
    assert (done.returncode, done.facts["removed"], done.facts["filled"]) == (0, 10, 10)
    with log.client() as client:
        assert client.execute("SELECT toDate(ts), count() FROM ui_events GROUP BY 1") == [(_DAY, 10)]


def test_a_moved_record_gets_no_row_on_a_day_with_rows_of_unknown_origin(log: UiEvents, replay: Chimera) -> None:
    """One of these rows may be its own; the output says how many records have none now."""
    log.produce(10)
    replay("--execute")
    with log.client() as client:
        client.execute(_LATER)
        client.execute(_FORGET.format(day=_DAY))
        client.execute(_FORGOTTEN.format(day=_DAY, zero=_ZERO))
    done = replay("--day", str(_NEXT_DAY), "--allow-removal", "--execute")
    assert done.returncode == 1
    assert "10 rows of other days with rows of unknown origin weren't filled in" in done.stdout
    assert log.stored()[0] == 10


def test_rows_between_the_committed_offset_and_the_first_one_stay(
    log: UiEvents, replay: Chimera, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker lags behind `--from`, and stores them when the rows below are copied already."""
    log.produce(40)
    log.topic.commit(10)
    replay("--execute")
    store = _COPY.format(ts="ts", offset="_offset + 10", chosen="_partition = 0 AND _offset < 5")
    with log.client() as client:
        _after_the_copy(monkeypatch, lambda: client.execute(store))
        _rewrite(log, begin=Bound(offset=18))
    assert log.stored() == (35, 35)


def test_rows_of_unknown_origin_that_come_meanwhile_stay(
    log: UiEvents, replay: Chimera, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They end the rewrite, or are kept, as the user says."""
    log.produce(10)
    replay("--execute")
    with log.client() as client:
        _after_the_copy(monkeypatch, lambda: client.execute("INSERT INTO ui_events SELECT * FROM ui_events LIMIT 2"))
        with pytest.raises(RemovalError, match="2 rows of unknown origin came"):
            _rewrite(log)
        assert log.stored()[0] == 12
        assert _rewrite(log, keep_unknown=True).carried == 4
    assert log.stored()[0] == 14


def test_a_record_that_becomes_a_dead_letter_meanwhile_gets_no_row(log: UiEvents, replay: Chimera) -> None:
    """The worker has rejected it, and has committed its offset."""
    log.produce(20)
    log.topic.commit(5, partition=1)
    replay("--execute")

    def reject_and_commit() -> None:
        reject(log.settings, log.family, made_up(1, first=7))
        log.commit()

    done = _rewrite(log, reject_and_commit)
    assert (done.made.counts.inserted, done.made.counts.lettered) == (19, 1)
    assert log.stored() == (19, 19)


def test_rows_stay_whose_records_retention_deletes_meanwhile(log: UiEvents, replay: Chimera) -> None:
    """They count as kept, and not as removed."""
    log.produce(20)
    replay("--execute")
    done = _rewrite(log, lambda: log.topic.delete_records(4), allow_removal=True)
    assert (done.made.counts.inserted, done.carried, done.removed) == (16, 4, 0)
    assert log.stored() == (20, 20)


class _Cutting:
    """A client whose copies end early, as those of killed queries may."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def execute(self, query: str, *arguments: Any, **options: Any) -> Any:
        return self._client.execute(f"{query} LIMIT 1" * query.startswith("INSERT") or query, *arguments, **options)


def test_a_copy_that_is_not_whole_ends_the_rewrite(log: UiEvents, replay: Chimera) -> None:
    """The rows that it lacks may be the only ones, because retention has deleted their records."""
    log.produce(20)
    replay("--execute")
    with log.client() as client, log.client() as looking:
        (topic_id,) = looking.execute("SELECT DISTINCT _topic_id FROM ui_events")[0]
        staging = Staging(_Cutting(client), "ui_events", topic_id, [str(_DAY)], "0123abcd")
        with staging.created(log.settings.clickhouse), pytest.raises(UnavailableError, match="1 of 10 rows"):
            staging.carry_before({0: [range(5)], 1: [range(5)]})


def test_a_table_that_replaces_rows_is_made_anew_without_the_replaced_ones(
    log: UiEvents, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row that a newer one of its key replaces isn't removed by the rewrite."""
    family = load_catalog(log.settings).family("bench_runs")
    topic, encoder = Topic.existing(log.settings.kafka, family.topic.name, 2), Encoder(family)
    run = events("bench_runs", 1)[0]
    topic.produce([encoder.encode(run | {"ts": run["ts"] + number}).value for number in range(4)])
    replay = command(capsys, monkeypatch, "replay", "bench_runs")
    with log.client() as client:
        client.execute("SYSTEM STOP MERGES bench_runs")
        for end in range(1, 5):
            topic.commit(end)
            replay("--execute")
        assert client.execute("SELECT count() FROM bench_runs") == [(4,)]
        done = replay(*_OF_DAY, "--execute", "--json")
        assert (done.returncode, done.facts["removed"]) == (0, 0)
        assert client.execute("SELECT max(_offset) FROM bench_runs FINAL") == [(3,)]


def test_a_barrier_stays_while_a_copy_of_a_killed_rewrite_runs(log: UiEvents, replay: Chimera) -> None:
    """The server goes on with the queries of a killed process; inserts before its exchange would be lost."""
    log.produce(20)
    replay("--execute")
    with log.client() as client, log.client() as copying:
        client.execute("CREATE TABLE ui_events_rewrite_0123abcd AS ui_events")
        slow = threading.Thread(target=copying.execute, args=(_SLOW_COPY,))
        slow.start()
        eventually(lambda: client.execute(_COPIES)[0][0], "the copy has begun")
        client.execute("ALTER TABLE ui_events MODIFY SETTING max_parts_in_total = 1")
        assert remove_left(log.settings.clickhouse, "ui_events")
        assert client.execute(_COPIES) == [(0,)]
        assert not is_up(client, "ui_events")
        slow.join()
