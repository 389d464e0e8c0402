"""The repair of a day of session_stats on a real ClickHouse, also while the rollup stores rows."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from clickhouse_driver import Client
from clickhouse_driver.errors import ServerException
from support.session_stats import (
    ALL_CLOSED,
    DAY,
    HOUR_MS,
    NOON,
    OPEN,
    SUBMIT,
    Event,
    Row,
    break_rows,
    broken_day,
    expected_rows,
    horizon_with_late,
    random_events,
    store_events,
    store_rows,
    stored_rows,
    tables,
    uuid,
)

from pipeline.clickhouse.codes import Code, failure_kind
from pipeline.config import Settings
from pipeline.errors import FailureKind
from pipeline.rollup import repair as repair_module
from pipeline.rollup.audit import Audit
from pipeline.rollup.horizon import Horizon
from pipeline.rollup.repair import OvertakenError, Plan, RefusedError, plan, repair
from pipeline.rollup.verify import Report, verify

pytestmark = pytest.mark.integration


def _plan(client: Client, horizon: Horizon = ALL_CLOSED) -> Plan:
    return plan(Audit(client, "ui_events"), horizon, DAY)


def _repair(settings: Settings, horizon: Horizon = ALL_CLOSED) -> None:
    repair(settings.clickhouse, "ui_events", horizon, DAY)


def _verify(client: Client, horizon: Horizon = ALL_CLOSED) -> Report:
    return verify(Audit(client, "ui_events"), horizon)


def test_a_plan_counts_the_changes_of_each_hour(client: Client) -> None:
    """It counts kept, changed, added and removed rows, and rows that only gain late events."""
    events = random_events(5, hours=2)
    rows = expected_rows(events)
    late = next(row for row in rows if row.hour == NOON + 1)
    store_events(client, events)
    broken, _ = break_rows([row for row in rows if row.hour == NOON])
    store_rows(client, [*broken, *(row for row in rows if row.hour == NOON + 1 and row != late)])
    horizon = horizon_with_late({(NOON + 1, late.session): late.events_count})
    planned = _plan(client, horizon)
    first, second = planned.hours
    assert (first.kept, first.changed, first.added, first.removed, first.late) == (len(broken) - 9, 7, 1, 1, 0)
    assert (second.changed, second.added, second.removed, second.late) == (0, 1, 0, 1)
    assert planned.changes


def test_a_repair_includes_late_events(settings: Settings, client: Client) -> None:
    """Afterwards verify finds no difference, and counts the rows with late events."""
    events = [Event(uuid(number), NOON * HOUR_MS + number, OPEN, 1) for number in (1, 2, 2)]
    store_events(client, events)
    store_rows(client, expected_rows(events[:2]))
    horizon = horizon_with_late({(NOON, uuid(2)): 1})
    assert (_verify(client, horizon).explained, _verify(client, horizon).late_included) == (1, 0)
    _repair(settings, horizon)
    assert (_verify(client, horizon).found.total(), _verify(client, horizon).late_included) == (0, 1)
    assert stored_rows(client) == expected_rows(events)


def test_an_hour_that_a_ttl_expires_keeps_its_rows(settings: Settings, client: Client) -> None:
    """Its events may be gone in part, so its rows can't be computed again; a later hour of the day is repaired."""
    events = [Event(uuid(number), (NOON + number) * HOUR_MS, OPEN, 1) for number in (0, 1)]
    wrong = [row._replace(events_count=7) for row in expected_rows(events)]
    store_events(client, events)
    store_rows(client, wrong)
    rule = f"toDateTime(if(ts < fromUnixTimestamp64Milli({(NOON + 1) * HOUR_MS}), '2026-02-01', '2100-01-01'), 'UTC')"
    client.execute(f"ALTER TABLE ui_events MODIFY TTL {rule}")
    report = _verify(client)
    assert ([hour.number for hour in report.gone_hours], report.hours, report.found.total()) == ([NOON], 1, 1)
    assert [hour.changed for hour in _plan(client).hours] == [0, 1]
    _repair(settings)
    assert stored_rows(client) == [wrong[0], expected_rows(events)[1]]


_EMITTED = Row(NOON + 3, uuid(77), 1, 0, 0, 1, 0)


_ONE_OPEN = Horizon(NOON + 3)


def _before(monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[], None]) -> None:
    """Call `act` before each call of a step of the repair."""
    step = getattr(repair_module, name)

    def delayed(*arguments: Any) -> Any:
        act()
        return step(*arguments)

    monkeypatch.setattr(repair_module, name, delayed)


def test_rows_that_come_while_others_are_copied_are_kept(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rollup stores an hour during the copy: the repair starts again, and its result has these rows."""
    rows = broken_day(client)
    copies: list[int] = []

    def emit_before_the_first_copy() -> None:
        copies.append(1)
        if len(copies) == 1:
            store_rows(client, [_EMITTED])

    _before(monkeypatch, "_fill", emit_before_the_first_copy)
    _repair(settings, _ONE_OPEN)
    assert stored_rows(client) == [*rows, _EMITTED]
    assert len(copies) == 2


def test_rows_that_never_stop_coming_end_a_repair(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The repair gives up, changes nothing, and leaves no table behind."""
    broken_day(client)
    _before(monkeypatch, "_fill", lambda: store_rows(client, [_EMITTED]))
    with pytest.raises(OvertakenError, match="nothing was changed"):
        _repair(settings, _ONE_OPEN)
    assert set(stored_rows(client)) == {_EMITTED}
    assert not {name for name in tables(client) if "repair" in name}


def test_no_row_is_stored_between_the_last_look_and_the_replacement(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server refuses it with an error that the rollup tries again after; afterwards it takes it."""
    rows = broken_day(client)
    store_rows(client, rows[:1])  # an empty table has no part, and takes the insert
    refused: list[int] = []

    def emit() -> None:
        with pytest.raises(ServerException) as error:
            store_rows(client, [_EMITTED])
        refused.append(error.value.code)

    _before(monkeypatch, "_replace", emit)
    _repair(settings, _ONE_OPEN)
    assert [(code, failure_kind(code)) for code in refused] == [(Code.TOO_MANY_PARTS, FailureKind.RETRY)]
    store_rows(client, [_EMITTED])
    assert stored_rows(client) == [*rows, _EMITTED]


def test_a_barrier_of_a_killed_repair_is_removed_by_the_next(settings: Settings, client: Client) -> None:
    """Otherwise the rollup would wait for ever."""
    rows = broken_day(client)
    client.execute("ALTER TABLE session_stats MODIFY SETTING max_parts_in_total = 1")
    _repair(settings, _ONE_OPEN)
    store_rows(client, [_EMITTED])
    assert stored_rows(client) == [*rows, _EMITTED]


def _without_barrier(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repair as on a replicated table, where inserts of other servers can't be held up."""
    monkeypatch.setattr(repair_module, "works", lambda *_: False)


def test_rows_lost_at_the_last_moment_are_reported(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows after the last check are lost with the old partition; the error says so, and a repair restores them."""
    rows = broken_day(client)
    store_events(client, [Event(_EMITTED.session, _EMITTED.hour * HOUR_MS, SUBMIT, 1)])
    with monkeypatch.context() as patch:
        _without_barrier(patch)
        _before(patch, "_replace", lambda: store_rows(client, [_EMITTED]))
        with pytest.raises(OvertakenError, match=r"stored 1 rows of the hour 15:00 UTC, .* again"):
            _repair(settings, _ONE_OPEN)
    assert stored_rows(client) == rows
    _repair(settings)
    assert stored_rows(client) == [*rows, _EMITTED]


def test_rows_that_come_after_the_replacement_are_kept(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No error is raised, even if ClickHouse merges them with the new parts at once."""
    rows = broken_day(client)

    def emit_and_merge() -> None:
        store_rows(client, [_EMITTED])
        client.execute("OPTIMIZE TABLE session_stats FINAL")

    _without_barrier(monkeypatch)
    _before(monkeypatch, "_check_nothing_lost", emit_and_merge)
    _repair(settings, _ONE_OPEN)
    assert stored_rows(client) == [*rows, _EMITTED]


def test_a_copy_that_lacks_rows_is_made_again(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its query may have been killed: the day isn't replaced by less than its rows."""
    rows = broken_day(client)
    looks: list[int] = []

    def cut_the_first_copy() -> None:
        looks.append(1)
        if len(looks) == 2:
            (staging,) = (name for name in tables(client) if "repair" in name)
            client.execute(f"DELETE FROM {staging} WHERE session_id = '{rows[0].session}'")

    _before(monkeypatch, "_newest_block", cut_the_first_copy)
    _repair(settings)
    assert stored_rows(client) == rows
    assert len(looks) == 4, "one check before and one after each of two copies"


class _KilledAtTheEnd:
    """A client whose ALTER is killed when the server has done it."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def execute(self, query: str, *arguments: Any, **options: Any) -> Any:
        answer = self._client.execute(query, *arguments, **options)
        if query.startswith("ALTER"):
            raise ServerException("Query was cancelled", Code.QUERY_WAS_CANCELLED)
        return answer


def test_a_replacement_that_is_killed_loses_no_rows_unsaid(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server may have made it all the same: rows that came at the last moment are looked for."""
    rows = broken_day(client)
    replace = repair_module._replace

    def kill(server: Client, *arguments: Any) -> None:
        store_rows(client, [_EMITTED])
        replace(_KilledAtTheEnd(server), *arguments)

    monkeypatch.setattr(repair_module, "_replace", kill)
    with pytest.raises(OvertakenError, match=r"stored 1 rows of the hour 15:00 UTC, .* again"):
        _repair(settings, _ONE_OPEN)
    assert stored_rows(client) == rows


def test_a_repair_that_fails_changes_nothing(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted before the replacement, even by the user, it keeps the rows and drops its table."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    rows = broken_day(client)[:10]
    store_rows(client, rows)
    _before(monkeypatch, "_replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        _repair(settings)
    assert stored_rows(client) == rows
    assert not {name for name in tables(client) if "repair" in name}


def test_two_repairs_at_once_end_as_one(settings: Settings, client: Client) -> None:
    """Each repair has its own table; the one that is overtaken starts again."""
    rows = broken_day(client)
    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(_repair, settings) for _ in range(2)]:
            done.result()
    assert stored_rows(client) == rows
    assert not {name for name in tables(client) if "repair" in name}


def test_a_day_without_events_is_not_wiped(client: Client) -> None:
    """The repair is refused with the command that removes the rows; open hours don't matter."""
    events = [Event(uuid(1), NOON * HOUR_MS, OPEN, 1), Event(uuid(1), (NOON + 3) * HOUR_MS, OPEN, 1)]
    store_rows(client, expected_rows(events))
    store_events(client, events[1:])
    with pytest.raises(RefusedError, match=r"no events of 2026-01-31 .* all 1 rows .* DROP PARTITION '2026-01-31'"):
        _plan(client, _ONE_OPEN).check()
    _plan(client).check()  # the other hour has events and is closed now: this is a repair
    client.execute("TRUNCATE TABLE session_stats")
    _plan(client, _ONE_OPEN).check()  # there are no rows to lose
