"""`chimera replay` on real servers: rows that a table lacks are filled in, once, and no others."""

import pytest
import yaml
from support.commands import Chimera, command
from support.dlq_topic import made_up, messages, reject
from support.events import events, rows
from support.kafka_topic import Topic
from support.replays import UiEvents

from pipeline.catalog import load_catalog
from pipeline.clickhouse.table_lock import TableLock
from pipeline.config import Settings
from pipeline.producer.encode import Encoder
from pipeline.transport.commit_metadata import Ranges

pytestmark = pytest.mark.integration

_THIRD = "DELETE FROM ui_events WHERE cityHash64(_partition, _offset) % 3 = 0"


def test_an_empty_table_is_filled_with_the_rows_that_a_worker_stores(log: UiEvents, replay: Chimera) -> None:
    """The second replay inserts nothing, and the group's offsets stay."""
    log.produce(400)
    before = log.topic.committed
    assert replay("--execute", "--json").facts["inserted"] == 400
    assert log.complete(rows(log.settings, "ui_events"))
    again = replay("--execute", "--json")
    assert (again.returncode, again.facts["inserted"], again.facts["records"]) == (0, 0, 0)
    assert (log.stored(), log.topic.committed, log.topic.members) == ((400, 400), before, set())


def test_deleted_rows_come_back_however_often(log: UiEvents, replay: Chimera) -> None:
    """ClickHouse remembers the tokens of deleted rows, so each replay has tokens of its own."""
    log.produce(400)
    replay("--execute")
    for _ in range(2):
        with log.client() as client:
            client.execute(_THIRD)
        missing = 400 - log.stored()[0]
        assert missing > 0
        assert replay("--execute", "--json").facts["inserted"] == missing
        assert log.complete(rows(log.settings, "ui_events"))


def test_a_plan_changes_nothing(log: UiEvents, replay: Chimera) -> None:
    """Without --execute, offsets and a sample are shown, and no row is inserted."""
    log.produce(100)
    planned = replay("--json").facts
    assert [(part["from"], part["to"], part["to_read"]) for part in planned["partitions"]] == [(0, 50, 50)] * 2
    assert (planned["estimated_rows"], planned["sample"]["inserted"]) == (100, 100)
    shown = replay()
    assert "Partition 1: offsets 0 to 50 (exclusive), 0 with a row, 50 to read" in shown.stdout
    assert "add --execute" in shown.stderr
    assert log.stored() == (0, 0)


def test_nothing_is_read_at_or_above_the_committed_offset(log: UiEvents, replay: Chimera) -> None:
    """These records are the worker's, which is going to store them."""
    log.produce(100)
    log.produce(100, committed=False)
    assert replay("--execute", "--json").facts["inserted"] == 100
    assert log.stored() == (100, 100)


def test_an_end_is_exclusive(log: UiEvents, replay: Chimera) -> None:
    """Bounds are offsets of all partitions or of some, or times of records in Kafka."""
    log.produce(100)
    cases: dict[tuple[str, ...], list[tuple[int, int]]] = {
        ("--from", "10", "--to", "30"): [(10, 30), (10, 30)],
        ("--from", "1:10", "--to", "1:30", "--to", "0:5"): [(0, 5), (10, 30)],
        ("--from", "2020-01-01", "--to", "2100-01-01T00:00Z"): [(0, 50), (0, 50)],
        ("--to", "2020-01-01"): [(0, 0), (0, 0)],
        ("--from", "2100-01-01"): [(50, 50), (50, 50)],
    }
    for arguments, expected in cases.items():
        planned = replay(*arguments, "--json").facts["partitions"]
        assert [(part["from"], part["to"]) for part in planned] == expected, arguments
    assert replay("--from", "10", "--to", "30", "--execute", "--json").facts["inserted"] == 40
    with log.client() as client:
        assert client.execute("SELECT min(_offset), max(_offset), count() FROM ui_events") == [(10, 29, 40)]


def test_a_rejected_record_is_listed_and_becomes_no_second_dead_letter(log: UiEvents, replay: Chimera) -> None:
    """The worker has written its dead letter already."""
    log.produce(10)
    log.send([b"no event", b""])
    log.commit()
    ended = replay("--execute")
    assert "Rejected: partition 0, offset 5: unframed" in ended.stdout
    assert "Rejected: partition 0, offset 6: empty" in ended.stdout
    assert log.stored() == (10, 10)
    assert messages(log.settings, log.family.dead_letters.name) == []


def test_a_dead_letter_gets_no_row_beside_its_requeued_record(log: UiEvents, replay: Chimera) -> None:
    """A record that is valid by now may have been requeued, and would be stored twice."""
    log.produce(10)
    reject(log.settings, log.family, made_up(1, first=3))
    ended = replay("--execute", "--json")
    assert (ended.facts["inserted"], ended.facts["dead_letters"]) == (9, 1)


def test_a_dead_letter_whose_time_a_producer_has_set_is_known(settings: Settings, replay: Chimera) -> None:
    """Its record may be older than the one before it."""
    document = yaml.safe_load(settings.topics.file.read_text())
    document["defaults"]["timestamps"] = "producer"
    settings.topics.file.write_text(yaml.safe_dump(document))
    log = UiEvents(settings)
    log.produce(10)
    (letter,) = made_up(1, first=3)
    reject(settings, log.family, [letter._replace(timestamp=letter.timestamp - 3_600_000)])
    ended = replay("--execute", "--json")
    assert (ended.facts["inserted"], ended.facts["dead_letters"]) == (9, 1)


def test_days_with_rows_of_unknown_origin_are_left_alone(log: UiEvents, replay: Chimera) -> None:
    """A row without coordinates may be of one of the records."""
    log.produce(20)
    replay("--execute")
    with log.client() as client:
        client.execute("INSERT INTO ui_events SELECT * FROM ui_events LIMIT 1")
        client.execute("DELETE FROM ui_events WHERE _offset = 7")
    left = replay("--execute", "--json")
    assert (left.returncode, left.facts["inserted"], left.facts["withheld"]) == (1, 0, 20)
    assert "1 rows without coordinates" in replay().stdout
    filled = replay("--execute", "--despite-unknown", "--json")
    assert (filled.returncode, filled.facts["inserted"]) == (0, 2)


def test_offsets_that_retention_has_deleted_are_said(log: UiEvents, replay: Chimera) -> None:
    """What the log no longer holds can't be filled."""
    log.produce(100)
    log.topic.delete_records(20)
    assert "Partition 0: retention has deleted 20 of the offsets asked for." in replay().stdout
    assert replay("--execute", "--json").facts["inserted"] == 80


def test_another_table_gets_the_same_rows(log: UiEvents, replay: Chimera) -> None:
    """It is created like the family's own, which stays as it is."""
    log.produce(50)
    assert replay("--into", "again", "--json").facts["estimated_rows"] == 50
    assert replay("--into", "again", "--execute", "--json").facts["inserted"] == 50
    assert log.complete(rows(log.settings, "again"))
    assert (log.stored(), log.stored("again")) == ((0, 0), (50, 50))


def test_a_table_that_replaces_rows_keeps_the_newest_of_a_key(
    log: UiEvents, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that another one replaces at once are never there; that ends no replay."""
    family = load_catalog(log.settings).family("bench_runs")
    topic, encoder = Topic.existing(log.settings.kafka, family.topic.name, 2), Encoder(family)
    run = events("bench_runs", 1)[0]
    topic.produce([encoder.encode(run | {"ts": run["ts"] + number}).value for number in range(8)])
    topic.commit(8)
    replay = command(capsys, monkeypatch, "replay", "bench_runs")
    assert replay("--execute").returncode == 0
    assert replay("--execute").returncode == 0
    with log.client() as client:
        assert client.execute("SELECT toUnixTimestamp64Milli(ts) FROM bench_runs FINAL") == [(run["ts"] + 7,)]


def test_one_replay_of_a_table_runs_at_a_time(log: UiEvents, replay: Chimera) -> None:
    """The second one ends before it changes anything; the lock ends with its holder."""
    log.produce(10)
    with TableLock(log.settings.clickhouse, "ui_events"):
        refused = replay("--execute")
        assert refused.returncode == 1
        assert "another replay or repair of it is under way" in refused.stderr
        assert log.stored() == (0, 0)
    assert replay("--execute").returncode == 0


def test_offsets_of_a_topic_that_was_created_anew_are_refused(log: UiEvents, replay: Chimera) -> None:
    """The worker has stored nothing below them, and is going to."""
    log.produce(10)
    log.commit(str(Ranges("Kq3mXo5pQ0uWm0n0aD2x7A")))
    refused = replay("--execute")
    assert refused.returncode == 70
    assert "created anew" in refused.stderr


def test_a_table_that_would_change_or_lose_rows_is_refused(log: UiEvents, replay: Chimera) -> None:
    """So is a view that would count the rows of a repeated insert twice."""
    log.produce(10)
    with log.client() as client:
        client.execute("CREATE TABLE nothing AS ui_events ENGINE=Null")
        refused = replay("--into", "nothing", "--execute")
        assert (refused.returncode, "engine Null: expected MergeTree" in refused.stderr) == (70, True)
        client.execute("CREATE MATERIALIZED VIEW seen ENGINE=Memory AS SELECT ts FROM ui_events")
        refused = replay("--execute")
        assert (refused.returncode, "remembers no deduplication tokens" in refused.stderr) == (70, True)
    assert log.stored() == (0, 0)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        pytest.param(("--from", "yesterday"), 2, "expected an offset", id="no bound"),
        pytest.param(("--from", "3", "--from", "0:4"), 2, "--from once", id="two bounds"),
        pytest.param(("--into", "a b"), 2, "name of a table", id="no table"),
        pytest.param(("--into", "ui_events_rewrite_0123abcd"), 2, "staging table", id="staging table"),
        pytest.param(("--day", "2026-01-31", "--to", "3"), 2, "--day without --to", id="end of a day"),
        pytest.param(("--max-rows-per-second", "0"), 78, "above 0", id="no limit"),
    ],
)
def test_wrong_options_are_one_line(replay: Chimera, arguments: tuple[str, ...], code: int, words: str) -> None:
    """Nothing is read."""
    ended = replay(*arguments)
    assert ended.returncode == code
    assert words in ended.stderr
