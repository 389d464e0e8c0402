"""`chimera verify` on real servers: it finds each difference between the log, a table and its dead letters."""

import json

import pytest
from support.events import events
from support.ingested import ingest, publish_to
from support.processes import prepare
from support.transactions import TransactionalProducer
from support.verifying import Verify, delete, insert_again, run_sql

from pipeline.catalog import Family
from pipeline.config import Settings
from pipeline.producer.encode import Encoder

pytestmark = pytest.mark.integration

_AT_7 = "_partition = 0 AND _offset = 7"


@pytest.fixture
def family(settings: Settings) -> Family:
    """The family ui_events, whose topics and table exist."""
    return prepare(settings).family("ui_events")


@pytest.fixture
def stored(settings: Settings, family: Family) -> Family:
    """The family with 260 records: 200 rows and 2 dead letters in partition 0, 58 rows in partition 1."""
    sound = _values(family, 258)
    publish_to(settings, family.topic.name, [*sound[:20], b"damaged", *sound[20:200], None])
    publish_to(settings, family.topic.name, sound[200:], partition=1)
    ingest(settings, family)
    return family


def _values(family: Family, count: int) -> list[bytes]:
    encoder = Encoder(family)
    return [encoder.encode(event).value for event in events(family.name, count)]


def _balance(found: dict[str, int]) -> int:
    """Offsets that the numbers of a family or a partition leave open."""
    accounted = ("rows", "dead_letters", "no_record", "expired", "replaced", "unknown", "deleted", "lost")
    return found["offsets"] - sum(found[name] for name in accounted) + found["doubled"]


@pytest.mark.usefixtures("stored")
def test_nothing_differs(verify: Verify) -> None:
    """Rows and dead letters together are the records, in each partition; other families have none."""
    ended = verify("ui_events", "--json")
    assert ended.code == 0, ended
    found = ended.family
    assert (found["offsets"], found["rows"], found["dead_letters"], found["lost"]) == (260, 258, 2, 0)
    assert [(each["committed"], each["rows"]) for each in found["partitions"]] == [(202, 200), (58, 58)]
    assert _balance(found) == 0
    assert ended.listed == []
    everything = verify("--by", "hour", "--by", "partition")
    assert everything.code == 0
    assert "0 lost, 0 doubled, 0 strange" in everything.out
    assert "bench_runs" in everything.out


def test_a_deleted_row_is_found(verify: Verify, settings: Settings, stored: Family) -> None:
    """It is named by partition and offset, and with the hour of its event."""
    delete(settings, stored.table, _AT_7)
    ended = verify("ui_events", "--json", "--by", "hour")
    assert ended.code == 1
    assert ended.listed == [("lost row", 0, 7, 7)]
    (listed,) = ended.family["listed"]
    assert listed["first_hour"] == listed["last_hour"] == "2026-01-31T00:00Z"
    assert sum(each["lost"] for each in ended.family["hours"]) == ended.family["lost"] == 1
    assert _balance(ended.family) == 0
    assert "lost row" in verify("ui_events").out


def test_many_lost_rows_are_one_range(verify: Verify, settings: Settings, stored: Family) -> None:
    """Successive offsets are one entry, and the limit bounds the entries, not the counts."""
    delete(settings, stored.table, "_partition = 0 AND _offset IN (3, 4, 5, 9) OR _partition = 1")
    ended = verify("ui_events", "--json")
    assert ended.listed == [("lost row", 0, 3, 5), ("lost row", 0, 9, 9), ("lost row", 1, 0, 57)]
    limited = verify("ui_events", "--json", "--limit", "1")
    assert limited.listed == [("lost row", 0, 3, 5)]
    assert limited.family["lost"] == 62
    assert "59 more differences" in verify("ui_events", "--limit", "1").out


def test_a_row_that_is_there_twice_is_found(verify: Verify, settings: Settings, stored: Family) -> None:
    """It is named; the number counts the rows beyond the first."""
    insert_again(settings, stored.table, _AT_7)
    insert_again(settings, stored.table, f"{_AT_7} LIMIT 1")
    ended = verify("ui_events", "--json")
    assert ended.code == 1
    assert ended.listed == [("doubled", 0, 7, 7)]
    assert (ended.family["rows"], ended.family["doubled"], ended.family["lost"]) == (260, 2, 0)
    assert _balance(ended.family) == 0


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        pytest.param({"_offset": "8"}, {"lost": 1, "doubled": 1, "strange": 0}, id="those of another row"),
        pytest.param({"_offset": "1000"}, {"lost": 1, "doubled": 0, "strange": 1}, id="behind the end of the log"),
        pytest.param({"_partition": "5"}, {"lost": 1, "doubled": 0, "strange": 1}, id="a partition that isn't there"),
        pytest.param({"_topic_id": "generateUUIDv4()"}, {"lost": 1, "other_topics": 1}, id="another topic"),
    ],
)
def test_a_row_with_other_coordinates_is_found(
    changed: dict[str, str], found: dict[str, int], verify: Verify, settings: Settings, stored: Family
) -> None:
    """Its record is lost, and the row is counted where its coordinates lead."""
    insert_again(settings, stored.table, _AT_7, **changed)
    own = f"SELECT _topic_id FROM {stored.table} WHERE _partition = 1 LIMIT 1"
    delete(settings, stored.table, f"{_AT_7} AND _topic_id = ({own})")
    ended = verify("ui_events", "--json")
    assert ended.code == 1
    assert {name: ended.family[name] for name in found} == found
    assert ("lost row", 0, 7, 7) in ended.listed


def test_a_missing_dead_letter_is_found(verify: Verify, settings: Settings, family: Family) -> None:
    """Its record is named; it has no hour, since it can't be read."""
    publish_to(settings, family.topic.name, [*_values(family, 3), b"damaged"])
    ingest(settings, family, without_letters=True)
    ended = verify("ui_events", "--json", "--by", "hour")
    assert ended.code == 1
    assert ended.listed == [("lost dead letter", 0, 3, 3)]
    assert ended.family["hours"][-1] == {"partition": 0, "hour": None, "rows": 0, "doubled": 0, "lost": 1}
    assert verify("ui_events", "--day", "2026-02-01").code == 1  # it may be of any day


def test_a_row_of_a_dead_letter_is_found(verify: Verify, settings: Settings, stored: Family) -> None:
    """A record is one of the two."""
    insert_again(settings, stored.table, _AT_7, _offset="20")
    ended = verify("ui_events", "--json")
    assert ended.listed == [("row and dead letter", 0, 20, 20)]
    assert (ended.code, ended.family["doubled"], _balance(ended.family)) == (1, 1, 0)


def test_offsets_without_a_record_are_no_loss(verify: Verify, settings: Settings, family: Family) -> None:
    """Markers and aborted records are told from a missing row that lies among them."""
    sound = [(None, value) for value in _values(family, 30)]
    with TransactionalProducer(settings.kafka, f"{settings.kafka.group_id}.t") as producer:
        producer.send(family.topic.name, sound[:10])
        producer.commit()
        producer.send(family.topic.name, sound[10:20])
        producer.abort()
        producer.send(family.topic.name, sound[20:])
        producer.commit()
    ingest(settings, family)
    delete(settings, family.table, "_offset = 25")
    ended = verify("ui_events", "--json")
    assert (ended.family["offsets"], ended.family["rows"], ended.family["no_record"]) == (33, 19, 13)
    assert ended.listed == [("lost row", 0, 25, 25)]
    assert _balance(ended.family) == 0


def test_only_offsets_below_the_commit_are_compared(verify: Verify, settings: Settings, stored: Family) -> None:
    """Rows of records that aren't committed yet are counted apart, and records without a row aren't lost."""
    publish_to(settings, stored.topic.name, _values(stored, 5))
    insert_again(settings, stored.table, _AT_7, _offset="203")
    ended = verify("ui_events", "--json")
    assert (ended.code, ended.family["offsets"], ended.family["ahead"], ended.family["lost"]) == (0, 260, 1, 0)


def test_a_day_is_looked_at_alone(verify: Verify, settings: Settings, stored: Family) -> None:
    """Rows and lost records are those of the day."""
    delete(settings, stored.table, _AT_7)
    assert verify("ui_events", "--day", "2026-01-31", "--json").family["lost"] == 1
    other = verify("ui_events", "--day", "2026-02-01", "--json")
    assert (other.code, other.family["lost"], other.family["rows"]) == (0, 0, 0)
    assert verify("ui_events", "--day", "2299-12-31").code == 0
    assert verify("ui_events", "--day", "2300-01-01").code == 2


@pytest.mark.usefixtures("family")
def test_the_families_are_named(verify: Verify) -> None:
    """A family that isn't there is a wrong option."""
    ended = verify("ui_event")
    assert ended.code == 2
    assert "expected one of bench_runs" in ended.err


def test_missing_columns_are_named(verify: Verify, settings: Settings, stored: Family) -> None:
    """One line, and the way out."""
    run_sql(settings, f"ALTER TABLE {stored.table} DROP COLUMN _offset")
    ended = verify("ui_events")
    assert ended.code == 70
    assert "chimera migrate" in ended.err


@pytest.mark.usefixtures("family")
def test_the_json_is_one_object(verify: Verify) -> None:
    """All families are in it."""
    ended = verify("--json")
    facts = json.loads(ended.out)
    assert [each["family"] for each in facts["families"]][:2] == ["bench_runs", "llm_events"]
    assert facts["differs"] is False
