"""`chimera verify` on real servers: what explains a record without a row, and rows that are compared with nothing."""

from typing import Any

import pytest
from support.events import events
from support.ingested import PARTITIONS, ingest, publish_to
from support.kafka_topic import Topic
from support.processes import prepare
from support.verifying import Verify, delete, insert_again, run_sql

from pipeline.catalog import Family
from pipeline.config import Settings, env_name
from pipeline.devstack.ports import free_port
from pipeline.operations.lineage.missing import Missing
from pipeline.producer.encode import Encoder

pytestmark = pytest.mark.integration

_HOUR_MS = 3_600_000
_OTHER = "00000000-0000-4000-8000-000000000001"


@pytest.fixture
def stored(settings: Settings) -> Family:
    """The family ui_events with 20 rows and a dead letter, at offset 20, in partition 0."""
    family = prepare(settings).family("ui_events")
    publish_to(settings, family.topic.name, [*_values(family, 20), b"damaged"])
    ingest(settings, family)
    return family


def _values(family: Family, count: int) -> list[bytes]:
    encoder = Encoder(family)
    return [encoder.encode(event).value for event in events(family.name, count)]


def test_expired_rows_are_no_loss(verify: Verify, settings: Settings, stored: Family) -> None:
    """The table's TTL explains them."""
    run_sql(
        settings,
        f"ALTER TABLE {stored.table} MODIFY TTL toDateTime(ts) + INTERVAL 1 DAY",
        f"OPTIMIZE TABLE {stored.table} FINAL",
    )
    ended = verify("ui_events", "--json")
    assert (ended.code, ended.family["rows"], ended.family["expired"], ended.family["lost"]) == (0, 0, 20, 0)
    assert "TTL has expired" in verify("ui_events").out


def test_replaced_rows_are_no_loss(verify: Verify, settings: Settings) -> None:
    """A row of the same key and day with a later time explains them; another day's row doesn't, nor an earlier one."""
    family = prepare(settings).family("bench_runs")
    (event,) = events("bench_runs", 1)
    times = [0, 1, 2, 24 * _HOUR_MS]
    encoder = Encoder(family)
    values = [encoder.encode({**event, "ts": event["ts"] + after}).value for after in times]
    publish_to(settings, family.topic.name, values)
    ingest(settings, family)
    run_sql(settings, f"OPTIMIZE TABLE {family.table} FINAL")
    ended = verify("bench_runs", "--json")
    assert (ended.code, ended.family["rows"], ended.family["replaced"], ended.family["lost"]) == (0, 2, 2, 0)
    delete(settings, family.table, "_offset = 2")
    ended = verify("bench_runs", "--json")
    assert (ended.code, ended.family["rows"], ended.listed) == (1, 1, [("lost row", 0, 0, 2)])


def test_a_row_that_comes_meanwhile_is_no_loss(
    verify: Verify, settings: Settings, stored: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What seems lost is looked for once more: a replay may store it while its record is being read."""
    own = f"(SELECT _topic_id FROM {stored.table} WHERE _offset = 0)"
    insert_again(settings, stored.table, "_offset = 7", _topic_id=f"toUUID('{_OTHER}')")
    delete(settings, stored.table, f"_offset = 7 AND _topic_id != toUUID('{_OTHER}')")
    judge: Any = Missing.judge

    def judge_late(*arguments: Any) -> Any:
        insert_again(settings, stored.table, f"_topic_id = toUUID('{_OTHER}')", _topic_id=own)
        return judge(*arguments)

    assert verify("ui_events", "--json").listed == [("lost row", 0, 7, 7)]
    monkeypatch.setattr(Missing, "judge", judge_late)
    ended = verify("ui_events", "--json")
    assert (ended.code, ended.family["rows"], ended.listed) == (0, 20, [])


def test_rows_without_coordinates_are_unknown(verify: Verify, settings: Settings, stored: Family) -> None:
    """They explain first offsets, and a later one if time and key are its record's; alone they are no difference."""
    old = "_partition = 0 AND (_offset < 5 OR _offset = 9)"
    insert_again(settings, stored.table, old, _topic_id="toUUID('00000000-0000-0000-0000-000000000000')")
    delete(settings, stored.table, f"({old}) AND _topic_id != toUUID('00000000-0000-0000-0000-000000000000')")
    ended = verify("ui_events", "--json")
    assert (ended.code, ended.family["unknown"], ended.family["unknown_rows"]) == (0, 6, 6)
    assert "6 rows have no coordinates" in verify("ui_events").out
    delete(settings, stored.table, "_offset = 11")
    ended = verify("ui_events", "--json")
    assert (ended.code, ended.listed) == (1, [("lost row", 0, 11, 11)])


def test_a_topic_that_was_created_anew_is_another_one(verify: Verify, settings: Settings, stored: Family) -> None:
    """Rows of the earlier topic are counted apart, and its dead letters stand for no record of the new one."""
    Topic.existing(settings.kafka, stored.topic.name, PARTITIONS).create_anew()
    prepare(settings)
    publish_to(settings, stored.topic.name, _values(stored, 25))
    ingest(settings, stored)
    ended = verify("ui_events", "--json")
    assert (ended.code, ended.family["rows"], ended.family["other_topics"], ended.family["dead_letters"]) == (
        0,
        25,
        20,
        0,
    )
    delete(settings, stored.table, "_offset = 20")
    assert verify("ui_events", "--json").listed == [("lost row", 0, 20, 20)]


def test_a_commit_behind_the_end_of_the_log_is_said(verify: Verify, settings: Settings, stored: Family) -> None:
    """It is the offset of another log, by which records that aren't consumed yet would look lost."""
    Topic.existing(settings.kafka, stored.topic.name, PARTITIONS).commit(99)
    ended = verify("ui_events")
    assert ended.code == 69
    assert "committed offset 99, but the log ends at 21" in ended.err


def test_deleted_records_are_compared_with_nothing(verify: Verify, settings: Settings, stored: Family) -> None:
    """Their rows are counted, whether they are there or not."""
    Topic.existing(settings.kafka, stored.topic.name, PARTITIONS).delete_records(before=10)
    delete(settings, stored.table, "_offset = 3")
    ended = verify("ui_events", "--json")
    found = ended.family
    assert (ended.code, found["offsets"], found["rows"], found["before"], found["lost"]) == (0, 11, 10, 9, 0)


def test_deleted_dead_letters_are_no_loss(verify: Verify, settings: Settings, stored: Family) -> None:
    """Retention may have deleted the dead letter of a rejected record that isn't newer than those that are left."""
    Topic.existing(settings.kafka, stored.dead_letters.name, 1).delete_records(before=1)
    ended = verify("ui_events", "--json")
    assert (ended.code, ended.family["dead_letters"], ended.family["deleted"]) == (0, 0, 1)


@pytest.mark.parametrize(
    "server", [("kafka", "bootstrap_servers"), ("clickhouse", "port")], ids=["kafka", "clickhouse"]
)
@pytest.mark.usefixtures("stored")
def test_an_absent_server_is_named(server: tuple[str, str], verify: Verify, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 69, and one line."""
    port = free_port()
    value: Any = f"127.0.0.1:{port}" if server[0] == "kafka" else port
    monkeypatch.setenv(env_name(*server), str(value))
    ended = verify("ui_events")
    assert ended.code == 69
    assert len(ended.err.strip().splitlines()) == 1
    assert str(port) in ended.err
