"""session_stats computed from ui_events by SQL on a real ClickHouse, and compared with the table."""

from datetime import date
from pathlib import Path
from uuid import UUID

import pytest
from clickhouse_driver import Client
from pydantic import SecretStr
from support.session_stats import (
    ALL_CLOSED,
    DAY,
    ERROR,
    HOUR_MS,
    HUGE,
    NOON,
    OPEN,
    SUBMIT,
    Event,
    Row,
    bits,
    break_rows,
    broken_day,
    expected_rows,
    horizon_with_late,
    random_events,
    snapshot_at_rest,
    store_events,
    store_rows,
    stored_rows,
    uuid,
)

from pipeline.clickhouse.access import Limit
from pipeline.clickhouse.client import connect
from pipeline.clickhouse.migrate import migrate
from pipeline.config import ClickHouseSettings
from pipeline.devstack.clickhouse import ClickHouseServer, ClickHouseUser
from pipeline.rollup.audit import Audit, Hour, Kind
from pipeline.rollup.horizon import Horizon
from pipeline.rollup.repair import repair
from pipeline.rollup.verify import verify

pytestmark = pytest.mark.integration


# Events: hour after noon, ms in the hour, type, latency. Rows by hour: mean latency, error rate, abandonment, events,
# seconds.
_CASES: dict[str, tuple[list[tuple[int, int, str, int]], dict[int, tuple[int, float, float, int, int]]]] = {
    "one event": ([(0, 5, SUBMIT, 7)], {0: (7, 0, 0, 1, 0)}),
    "exactly on the hour": ([(1, 0, OPEN, 1)], {1: (1, 0, 1, 1, 0)}),
    "the last millisecond of the hour": ([(0, HOUR_MS - 1, OPEN, 1)], {0: (1, 0, 1, 1, 0)}),
    "open and submit in the same millisecond": ([(0, 9, SUBMIT, 0), (0, 9, OPEN, 0)], {0: (0, 0, 0, 2, 0)}),
    "two opens and a submit in the same millisecond": (
        [(0, 9, OPEN, 0), (0, 9, SUBMIT, 0), (0, 9, OPEN, 0)],
        {0: (0, 0, 0.5, 3, 0)},
    ),
    "crosses the hour": (
        [(0, HOUR_MS - 1500, OPEN, 1), (0, HOUR_MS - 1, SUBMIT, 2), (1, 0, OPEN, 4), (1, 2999, SUBMIT, 4)],
        {0: (2, 0, 0, 2, 1), 1: (4, 0, 0, 2, 2)},
    ),
    "only errors": ([(0, 1, ERROR, 10), (0, 2, ERROR, 11)], {0: (11, 1, 0, 2, 0)}),
    "an open never answered": ([(0, 1, SUBMIT, 0), (0, 2, OPEN, 0)], {0: (0, 0, 1, 2, 0)}),
    "two opens, then a submit": ([(0, 1, OPEN, 0), (0, 2, OPEN, 0), (0, 3, SUBMIT, 0)], {0: (0, 0, 0.5, 3, 0)}),
    "an error between open and submit": (
        [(0, 1, OPEN, 0), (0, 2, ERROR, 0), (0, 1003, SUBMIT, 1)],
        {0: (0, 1 / 3, 0, 3, 1)},
    ),
    "answered past the hour": ([(0, 3_599_000, OPEN, 0), (1, 1, SUBMIT, 0)], {0: (0, 0, 1, 1, 0), 1: (0, 0, 0, 1, 0)}),
    "half rounds up": ([(0, 1, SUBMIT, 1), (0, 2, SUBMIT, 2)], {0: (2, 0, 0, 2, 0)}),
    "below half rounds down": ([(0, 1, SUBMIT, 1), (0, 2, SUBMIT, 1), (0, 3, SUBMIT, 2)], {0: (1, 0, 0, 3, 0)}),
    "the greatest latencies": ([(0, 0, SUBMIT, HUGE), (0, 3_599_999, SUBMIT, HUGE)], {0: (HUGE, 0, 0, 2, 3599)}),
    "a skewed clock, far ahead": (
        [(0, 1, OPEN, 3), (500_000, 1, OPEN, 3)],
        {0: (3, 0, 1, 1, 0), 500_000: (3, 0, 1, 1, 0)},
    ),
}


def test_the_sql_matches_the_definition(client: Client) -> None:
    """Every edge case has the figures computed by hand; plain Python agrees, and empty hours stay empty."""
    by_hand: dict[str, list[Row]] = {}
    for number, (name, (events, rows)) in enumerate(_CASES.items(), 1):
        session = uuid(number)
        own = [Event(session, (NOON + hour) * HOUR_MS + ms, kind, latency) for hour, ms, kind, latency in events]
        store_events(client, own)
        by_hand[name] = [
            Row(NOON + hour, session, mean, bits(errors), bits(abandoned), count, seconds)
            for hour, (mean, errors, abandoned, count, seconds) in rows.items()
        ]
        assert expected_rows(own) == by_hand[name], name
    audit = Audit(client, "ui_events")
    for hour in audit.hours(None):
        client.execute(f"INSERT INTO session_stats {audit.recomputed(hour)}")
    found = stored_rows(client)
    assert {name: [row for row in found if row.session == rows[0].session] for name, rows in by_hand.items()} == by_hand
    assert len(found) == sum(map(len, by_hand.values()))


def test_the_first_and_the_last_hour_of_time(client: Client) -> None:
    """Events at the limits of the schema and of DateTime are computed."""
    events = [Event(uuid(1), 0, OPEN, 1), Event(UUID(int=0), HUGE * 1000 + 999, SUBMIT, HUGE)]
    store_events(client, events)
    store_rows(client, expected_rows(events))
    report = verify(Audit(client, "ui_events"), ALL_CLOSED)
    assert (report.rows, report.found.total(), report.gone_hours) == (2, 0, [])
    last = verify(Audit(client, "ui_events"), ALL_CLOSED, date(2106, 2, 7))
    assert (last.rows, last.found.total()) == (1, 0)


@pytest.mark.parametrize("seed", [1, 2])
def test_the_sql_agrees_with_plain_python(client: Client, seed: int) -> None:
    """Thousands of crowded events give exactly the same rows."""
    events = random_events(seed)
    store_events(client, events)
    store_rows(client, expected_rows(events))
    report = verify(Audit(client, "ui_events"), ALL_CLOSED)
    assert (report.rows, report.hours, report.found.total()) == (len(expected_rows(events)), 3, 0)


def test_every_kind_of_broken_row_is_found(client: Client) -> None:
    """One broken row of each kind among correct rows is listed once, with its differing column; no other row is."""
    events = random_events(3, hours=1)
    store_events(client, events)
    rows, broken = break_rows(expected_rows(events))
    store_rows(client, rows)
    report = verify(Audit(client, "ui_events"), ALL_CLOSED)
    said = {
        difference.session_id: (
            difference.kind,
            difference.found.differing(difference.expected)
            if difference.kind is Kind.DIFFERING and difference.found and difference.expected
            else (),
        )
        for difference, _ in report.listed
    }
    assert said == broken
    assert report.found.total() == len(report.listed) == len(broken)
    assert report.explained == 0
    assert report.rows == len(rows) + 1  # plus the missing row


def test_a_row_beside_the_hour_has_no_events(client: Client) -> None:
    """No worker writes an `hour` that isn't a full hour, even if the session has events then."""
    store_events(client, [Event(uuid(1), NOON * HOUR_MS + 60_000, OPEN, 1)])
    client.execute(f"INSERT INTO session_stats (hour, session_id) SELECT {NOON * 3600 + 60}, '{uuid(1)}'")
    report = verify(Audit(client, "ui_events"), ALL_CLOSED, DAY)
    assert report.found == {Kind.EXTRA: 1, Kind.MISSING: 1}


def test_days_whose_events_are_deleted_are_not_compared(client: Client) -> None:
    """Rows older than all events are counted and not compared; a later day without events is compared."""
    day = 24 * HOUR_MS
    kept = [Event(uuid(1), NOON * HOUR_MS, OPEN, 1), Event(uuid(1), NOON * HOUR_MS + 2 * day, OPEN, 1)]
    lost = [Event(uuid(1), NOON * HOUR_MS + offset, OPEN, 1) for offset in (-day, day)]
    store_events(client, kept)
    store_rows(client, expected_rows([*kept, *lost]))
    report = verify(Audit(client, "ui_events"), ALL_CLOSED)
    assert [hour.number for hour in report.gone_hours] == [NOON - 24]
    assert [difference.hour.number for difference, _ in report.listed] == [NOON + 24]
    assert (report.rows, report.found) == (3, {Kind.EXTRA: 1})


def test_late_events_explain_rows_that_lack_exactly_their_number(client: Client) -> None:
    """A row that lacks as many events as were late is explained; other rows and split rows aren't."""
    first = [Event(uuid(number), NOON * HOUR_MS + 5, OPEN, 1) for number in range(1, 6)]
    later = [Event(uuid(number), NOON * HOUR_MS + 7, OPEN, 1) for number in (1, 2, 2, 3, 6)]
    store_events(client, [*first, *later])
    store_rows(client, [*expected_rows(first), expected_rows(first)[4]])
    counts = {(NOON, uuid(number)): 1 for number in (1, 2, 3, 5, 6)} | {(NOON + 1, uuid(4)): 1}
    report = verify(Audit(client, "ui_events"), horizon_with_late(counts))
    assert {difference.session_id: explained for difference, explained in report.listed} == {
        uuid(1): True,
        uuid(2): False,  # the row lacks two events, and one was late
        uuid(3): True,
        uuid(5): False,  # split
        uuid(6): True,  # the row is missing
    }
    assert (report.explained, report.unexplained, report.late_included) == (3, 2, 0)


def test_late_events_of_two_partitions_add_up() -> None:
    """A session that has changed its partition may have late events in both."""
    one, two = (snapshot_at_rest("t", number, 1, 10**15, {(NOON, uuid(1)): number + 1}) for number in (0, 1))
    hour = Hour(NOON * 3600, DAY, 0, 0)
    assert Horizon(float("inf"), (one, two)).late_events(hour) == {uuid(1): 3}


@pytest.mark.parametrize("task", ["verify", "repair"])
def test_documented_rights_are_enough(tmp_path: Path, task: str) -> None:
    """Verify needs only SELECT under a read-only profile; repair needs the rights that the docs list."""
    documented = (Path(__file__).parents[2] / "docs/session_stats.md").read_text(encoding="utf-8")
    grants = [line.split(" TO ")[0] for line in documented.splitlines() if line.startswith("GRANT ")]
    reader = [grant for grant in grants if grant.startswith("GRANT SELECT ON chimera_metrics.")]
    chosen, limits = (reader, {"readonly": Limit(1)}) if task == "verify" else (grants, {})
    user = ClickHouseUser("auditor", "correct horse", tuple(chosen), limits)
    with ClickHouseServer(tmp_path / "server", users=[user]) as server:
        admin = ClickHouseSettings(port=server.port)
        migrate(admin)
        auditor = admin.model_copy(update={"user": user.name, "password": SecretStr(user.password)})
        with connect(admin) as client:
            rows = broken_day(client)
            with connect(auditor) as own:
                assert verify(Audit(own, "ui_events"), ALL_CLOSED).found == {Kind.MISSING: len(rows)}
            if task == "repair":
                repair(auditor, "ui_events", ALL_CLOSED, DAY)
                assert stored_rows(client) == rows
