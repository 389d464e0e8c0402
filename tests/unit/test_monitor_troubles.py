"""Rules of the monitor's troubles: each at its threshold and just before it, with its severity and its words."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from support.pipeline_states import NOW, busy, clickhouse_away, kafka_away, many_dead_letters, no_worker, quiet

from pipeline.operations.monitor.state import Consumption, DiskState, FamilyState, Health, PipelineState, Trouble
from pipeline.operations.monitor.troubles import Begins, Facts, Found, duration, find_troubles

_WARNING, _CRITICAL = Health.WARNING, Health.CRITICAL
_WEEK = 604_800.0


def _facts(state: PipelineState) -> Facts:
    return Facts(
        now=NOW.timestamp(),
        kafka=state.kafka,
        clickhouse=state.clickhouse,
        dead_letters=state.dead_letters,
        group=state.group,
        families=state.families,
        tables=state.tables,
        storage=state.storage,
        backup=state.backup,
        rollup=state.rollup,
        retention_seconds={family.name: _WEEK for family in state.families},
        clock_seconds=0.4,
        unstored_seconds={},
        flapping={},
        halts={},
        snapshot_seconds=60.0,
        reject_ratio=0.5,
    )


BUSY = _facts(busy())


def _families(**changes: object) -> Facts:
    """Return the facts of a busy pipeline, with changes of ui_events."""
    return replace(BUSY, families=tuple(_changed(each, changes) for each in BUSY.families))


def _changed(family: FamilyState, changes: dict[str, object]) -> FamilyState:
    return replace(family, **changes) if family.name == "ui_events" else family  # type: ignore[arg-type]


def _letters(unsettled: int, seconds: float) -> Facts:
    (letters,) = (each.dead_letters for each in BUSY.families if each.name == "ui_events")
    return _families(dead_letters=replace(letters, unsettled=unsettled, reasons={"empty": 1}, oldest_seconds=seconds))


def _tables(**changes: object) -> Facts:
    """Return the facts of a busy pipeline, with changes of the table ui_events."""
    tables = (
        replace(each, **changes) if each.name == "ui_events" else each  # type: ignore[arg-type]
        for each in BUSY.tables
    )
    return replace(BUSY, tables=tuple(tables))


def _partitions(consumption: Consumption) -> Facts:
    (family,) = (each for each in BUSY.families if each.name == "ui_events")
    first, *others = family.partitions
    return _families(partitions=(replace(first, consumption=consumption, lag_records=1234), *others))


def _disk(free_bytes: int) -> Facts:
    return replace(BUSY, storage=replace(BUSY.storage, disks=(DiskState("default", free_bytes, 100),)))


def _unsaved(seconds: float, snapshot_seconds: float = 60.0) -> Facts:
    assert BUSY.rollup is not None
    return replace(BUSY, rollup=replace(BUSY.rollup, unsaved_seconds=seconds), snapshot_seconds=snapshot_seconds)


@pytest.mark.parametrize(
    ("facts", "id_", "severity", "text"),
    [
        (_families(missing=True), "topic-missing", _CRITICAL, "Kafka has no topic chimera.ui_events"),
        (
            _families(leaderless=(0, 3)),
            "partition-without-leader",
            _CRITICAL,
            "2 of 8 partitions have no leader: 0, 3",
        ),
        (
            _families(leaderless=tuple(range(9))),
            "partition-without-leader",
            _CRITICAL,
            "9 of 8 partitions have no leader: 0, 1, 2, 3, 4, 5, 6, 7, …",
        ),
        (_families(unowned=2), "partition-without-worker", _CRITICAL, "2 of 8 partitions have no worker"),
        (_partitions(Consumption.STALLED), "stalled", _CRITICAL, "1 partitions don't move; 1,234 records wait"),
        (
            _families(consumption=Consumption.WARNING, lag_records=4321),
            "falling-behind",
            _WARNING,
            "the lag grows: 4,321 records",
        ),
        (
            _families(rejected_ratio=0.51),
            "rejects",
            _CRITICAL,
            "51% of the records become dead letters; workers aren't ready",
        ),
        (
            _families(lost_records=7),
            "records-lost",
            _CRITICAL,
            "retention deleted 7 records before they were consumed",
        ),
        (
            _families(retention_left_seconds=_WEEK / 4),
            "retention-near",
            _WARNING,
            "Kafka deletes unconsumed records in 1 day 18 h",
        ),
        (
            _families(retention_left_seconds=_WEEK / 10),
            "retention-near",
            _CRITICAL,
            "Kafka deletes unconsumed records in 16 h 48 min",
        ),
        (
            _families(retention_left_seconds=-5.0),
            "retention-near",
            _CRITICAL,
            "Kafka deletes unconsumed records in 0 s",
        ),
        (_letters(1, 86_401.0), "dead-letters", _WARNING, "1 dead letters wait for a person: 1 empty"),
        (_letters(1000, 1.0), "dead-letters", _WARNING, "1,000 dead letters wait for a person: 1 empty"),
        (_tables(missing=True), "table-missing", _CRITICAL, "ClickHouse has no table ui_events"),
        (_tables(most_parts=500), "many-parts", _WARNING, "a day has 500 parts"),
        (_tables(most_parts=1000), "many-parts", _CRITICAL, "a day has 1,000 parts"),
        (
            replace(BUSY, unstored_seconds={"ui_events": 121.0}),
            "nothing-stored",
            _CRITICAL,
            "records are consumed, but ui_events has got no rows for 120 s",
        ),
        (_disk(14), "disk-full", _WARNING, "14% of disk default is free"),
        (_disk(4), "disk-full", _CRITICAL, "4% of disk default is free"),
        (
            replace(BUSY, clock_seconds=-5.6),
            "clocks-differ",
            _WARNING,
            "its clock differs from the monitor's by -6 s",
        ),
        (replace(BUSY, backup=replace(BUSY.backup, reason="refused")), "backup-unread", _WARNING, "refused"),
        (
            replace(BUSY, backup=replace(BUSY.backup, last_failed=True)),
            "backup-failed",
            _WARNING,
            "the last attempt has failed",
        ),
        (
            replace(BUSY, backup=replace(BUSY.backup, too_old=True, age_seconds=90_061.0)),
            "backup-too-old",
            _WARNING,
            "the last backup began 1 day 1 h ago",
        ),
        (
            _unsaved(601.0),
            "rollup-behind",
            _WARNING,
            "consumed records have been without a snapshot for 10 min",
        ),
        (
            replace(BUSY, flapping={"10.4.0.9": 6}),
            "flapping",
            _WARNING,
            "it has joined the group 6 times in a quarter of an hour",
        ),
        (
            replace(BUSY, dead_letters=replace(BUSY.dead_letters, verdict=_CRITICAL, reason="not allowed")),
            "dead-letters-unread",
            _WARNING,
            "not allowed",
        ),
        (
            replace(_facts(quiet()), group=replace(BUSY.group, members=())),
            "no-worker",
            _WARNING,
            "no worker runs; nothing waits",
        ),
    ],
)
def test_a_rule_names_its_trouble(facts: Facts, id_: str, severity: Health, text: str) -> None:
    """It is the only one, and a person reads what is wrong and what to do."""
    (found,) = find_troubles(facts)
    assert (found.id, found.severity, found.text) == (id_, severity, text)
    assert found.where
    assert found.action.endswith(".")


@pytest.mark.parametrize(
    "facts",
    [
        BUSY,
        _facts(quiet()),
        _families(unowned=2, lag_records=0),
        _partitions(Consumption.STOPPED),
        _families(rejected_ratio=0.5),
        _families(rejected_ratio=None),
        _families(retention_left_seconds=_WEEK / 4 + 1),
        replace(_families(retention_left_seconds=0.0), retention_seconds={}),
        _letters(999, 86_400.0),
        _letters(0, 90_000.0),
        _tables(most_parts=499),
        replace(BUSY, unstored_seconds={"ui_events": 120.0}),
        replace(BUSY, unstored_seconds={"ui_events": 999.0}, families=_families(consumed_per_second=0.0).families),
        _disk(15),
        replace(BUSY, storage=replace(BUSY.storage, disks=(DiskState("backups", 0, 0),))),
        replace(BUSY, clock_seconds=5.0),
        replace(BUSY, clock_seconds=None),
        _unsaved(600.0),
        _unsaved(899.0, snapshot_seconds=300.0),
        replace(BUSY, rollup=None),
    ],
)
def test_just_before_a_threshold_all_is_well(facts: Facts) -> None:
    """There is no trouble."""
    assert not list(find_troubles(facts))


@pytest.mark.parametrize("state", [clickhouse_away, kafka_away, no_worker, many_dead_letters])
def test_the_examples_of_the_page_are_what_the_rules_find(state: Callable[[], PipelineState]) -> None:
    """Each trouble of an example has the rule's words; a server that is away says nothing else of itself."""
    found = {each.id: each for each in find_troubles(_facts(state()))}
    for trouble in state().troubles:
        rule = found[trouble.id]
        assert (rule.severity, rule.action) == (trouble.severity, trouble.action)
        if trouble.id != "stalled":  # the example shows one family
            assert (rule.where, rule.text) == (trouble.where, trouble.text)
    if state is kafka_away:
        assert found.keys() == {"kafka-away"}


def test_a_silent_kafka_hides_the_group_but_not_the_tables() -> None:
    """What is last known of a server that is away is no trouble; the other server's is."""
    away = replace(BUSY.kafka, verdict=_CRITICAL, reason=None)
    facts = replace(_tables(missing=True), kafka=away, group=replace(BUSY.group, members=()))
    assert [(each.id, each.text) for each in find_troubles(facts)] == [
        ("kafka-away", "no answer"),
        ("table-missing", "ClickHouse has no table ui_events"),
    ]


def _found(id_: str, severity: Health) -> Found:
    return Found(id_, severity, "here", "text", "Act.")


def test_the_worst_and_oldest_trouble_is_first_and_one_that_was_over_begins_anew() -> None:
    """The begin stays while a trouble lasts."""
    begins, start = Begins(), NOW.timestamp()

    def dated(seconds: float, *found: Found) -> list[tuple[str, datetime]]:
        troubles: tuple[Trouble, ...] = begins.dated(found, start + seconds)
        return [(each.id, each.since) for each in troubles]

    def at(seconds: float) -> datetime:
        return datetime.fromtimestamp(start + seconds, UTC)

    old, late, mild = _found("old", _CRITICAL), _found("late", _CRITICAL), _found("mild", _WARNING)
    assert dated(0, mild, old) == [("old", at(0)), ("mild", at(0))]
    assert dated(10, late, mild, old) == [("old", at(0)), ("late", at(10)), ("mild", at(0))]
    assert dated(20, late) == [("late", at(10))]
    assert dated(30, old, late) == [("late", at(10)), ("old", at(30))]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.0, "59 s"),
        (60.0, "1 min"),
        (3599.0, "59 min"),
        (3900.0, "1 h 5 min"),
        (86_400.0, "1 day 0 h"),
        (183_600.0, "2 days 3 h"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: float, text: str) -> None:
    """A person needs no more."""
    assert duration(seconds) == text
