"""What the monitor makes of several looks: rejects, flapping workers, partitions without a leader, recent events."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from pipeline.catalog import load_catalog
from pipeline.clickhouse.observing import StorageFacts, TableFacts
from pipeline.config import Settings
from pipeline.kafka.standing import LogPlace, Member, Standing
from pipeline.operations.monitor.journal import FLAPPING_SECONDS, Journal, LastHour
from pipeline.operations.monitor.partitions import PartitionWatch
from pipeline.operations.monitor.rejects import RejectShares, Totals
from pipeline.operations.monitor.state import Consumption, FamilyState, Health, Trouble, UnsettledLetters
from pipeline.operations.monitor.tables import TableHistory
from pipeline.operations.monitor.unsaved import UnsavedRecords

_TOPIC = "chimera.ui_events"
_LETTERS = UnsettledLetters(f"{_TOPIC}.dlq", 0, {}, None, 0)
_NOW = 1_764_000_000.0


def _standing(members: Mapping[str, str] | None = None, *, leaderless: Sequence[int] = (), end: int = 100) -> Standing:
    """Return the standing of a group with these members, host by id, on a topic of two partitions."""
    led = {LogPlace(_TOPIC, number): end for number in (0, 1) if number not in leaderless}
    return Standing(
        state="stable",
        members=tuple(Member(id_, "faust", host, frozenset(led)) for id_, host in (members or {"a": "here"}).items()),
        begins=dict.fromkeys(led, 0),
        ends=led,
        commits=led,
        missing=frozenset(),
        leaderless=frozenset(LogPlace(_TOPIC, number) for number in leaderless),
    )


@pytest.mark.parametrize(
    ("looks", "share"),
    [
        pytest.param([], None, id="not looked at yet"),
        pytest.param([(0, 500, 0)], None, id="one look"),
        pytest.param([(0, 0, 0), (10, 19, 19)], None, id="too few records"),
        pytest.param([(0, 0, 0), (10, 40, 30)], 0.75, id="most are rejected"),
        pytest.param([(0, 0, 0), (10, 40, 40), (70, 80, 40), (140, 120, 40)], 0.0, id="that was before the window"),
        pytest.param([(0, 0, 0), (10, 20, 25)], 1.0, id="letters are seen before the commit"),
    ],
)
def test_the_share_of_rejected_records_is_that_of_the_window(
    looks: list[tuple[float, int, int]], share: float | None
) -> None:
    """It needs the number of records that workers need, and forgets what is older than their window."""
    shares = RejectShares(60.0, 20)
    for at, consumed, rejected in looks:
        shares.add(at, {"ui_events": Totals(consumed, rejected)})
    assert shares.share("ui_events") == share


def test_a_host_whose_worker_joins_again_and_again_flaps() -> None:
    """Four starts within a quarter of an hour are too many for one worker; a rollout of many workers isn't."""
    journal = Journal()
    for at, ids in enumerate(["a", "b", "c", "d", "e"]):
        journal.compare(_NOW + at, _standing({ids: "here", "calm": "there"}))
    assert journal.flapping(_NOW + 5) == {"here": 4}
    assert journal.flapping(_NOW + 5 + FLAPPING_SECONDS) == {}
    rollout = Journal()
    rollout.compare(_NOW, _standing({f"old{n}": "here" for n in range(8)}))
    rollout.compare(_NOW + 1, _standing({f"new{n}": "here" for n in range(8)}))
    assert rollout.flapping(_NOW + 2) == {}


def test_a_critical_trouble_is_an_event_when_it_begins_and_when_it_ends() -> None:
    """The brake is such a trouble; a server that is away has events of its own, and a warning has none."""
    journal, since = Journal(), datetime.fromtimestamp(_NOW, UTC)
    brake = Trouble("rejects", Health.CRITICAL, "ui_events", "90% become dead letters", "Stop it.", since)
    others = [
        replace(brake, id="kafka-away", where="Kafka"),
        replace(brake, id="falling-behind", severity=Health.WARNING),
    ]
    journal.compare_troubles(_NOW, [brake, *others])
    journal.compare_troubles(_NOW + 5, [brake, *others])
    journal.compare_troubles(_NOW + 70, others)
    assert [(event.kind, event.text) for event in journal.events] == [
        ("over", "ui_events: over after 1 min: 90% become dead letters"),
        ("trouble", "ui_events: 90% become dead letters"),
    ]


def test_an_old_snapshot_is_no_trouble_while_nothing_comes() -> None:
    """Records that came after it wait; the wait ends with a snapshot that has them, not with the newest record."""
    unsaved = UnsavedRecords()
    for at, committed, saved, waited in [
        (0, 100, 100, 0),
        (3600, 100, 100, 0),  # quiet
        (3605, 120, 100, 0),
        (3635, 180, 100, 30),
        (3665, 190, 120, 0),  # a snapshot, and newer records wait from now on
        (3670, 190, 185, 5),
        (3675, 190, 190, 0),
    ]:
        unsaved.compare(_NOW + at, {0: committed, 1: 7}, {0: saved, 1: 7})
        assert unsaved.seconds(_NOW + at) == waited, at


def test_a_table_that_was_quiet_is_not_one_that_gets_no_rows() -> None:
    """The wait begins with records that are consumed, also in an empty table; an insert ends it."""
    tables = TableHistory(["ui_events"])
    for at, consumed, stored_at, waited in [
        (0, 1000, 0, {}),  # what was consumed before the monitor came
        (3600, 1010, 0, {"ui_events": 0}),
        (3605, 1020, 0, {"ui_events": 5}),
        (3610, 1030, 3604, {}),
        (7200, 1040, 3604, {"ui_events": 0}),
        (7205, 1040, 7199, {}),
    ]:
        insert = round(_NOW) + stored_at if stored_at else 0
        table = TableFacts(0, 0, 0, 0, 0, newest_insert=insert, newest_part=insert, blocks=insert)
        tables.add(_NOW + at, StorageFacts("26.9", 1, 0, 0, (), {}, {"ui_events": table}))
        tables.consumed(_NOW + at, "ui_events", consumed)
        assert tables.unstored_seconds(_NOW + at) == waited, at


def test_an_insert_that_was_merged_before_a_look_is_seen() -> None:
    """Its block number tells of it; a merge alone is no insert."""
    tables = TableHistory(["bench_runs"])
    for at, inserted, touched, blocks, stored in [
        (0, 7, 7, 1, 7),
        (5, 0, 9, 1, 7),
        (10, 0, 12, 2, 12),
        (15, 0, 14, 2, 12),
    ]:
        table = TableFacts(1, 0, 1, 1, 0, newest_insert=inserted, newest_part=touched, blocks=blocks)
        tables.add(_NOW + at, StorageFacts("26.9", 1, 0, 0, (), {}, {"bench_runs": table}))
        (state,) = tables.tables(_NOW + at)
        assert state.newest_stored == datetime.fromtimestamp(stored, UTC), at


def test_nothing_is_known_of_a_partition_without_a_leader() -> None:
    """It is named, it has no lag, it isn't one without a worker, and its return is no burst of records."""
    family = next(each for each in load_catalog(Settings()).families if each.name == "ui_events")
    watch, hour = PartitionWatch([family]), LastHour()

    def look(at: float, standing: Standing) -> FamilyState:
        watch.add(_NOW + at, standing)
        state = watch.family(family, _LETTERS, None, _NOW + at)
        hour.add(_NOW + at, [state])
        return state

    assert look(0, _standing()).leaderless == ()
    cut = look(30, _standing(leaderless=[1]))
    assert (cut.leaderless, cut.unowned, cut.lag_records) == ((1,), 0, 0)
    assert (cut.partitions[1].lag_records, cut.partitions[1].consumption) == (None, Consumption.UNKNOWN)
    assert look(60, _standing()).leaderless == ()
    look(90, _standing(end=130))
    assert hour.history(["ui_events"]).consumed_per_second["ui_events"] == (None, None, 2.0)
