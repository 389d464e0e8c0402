"""Recovery to a moment: a backup is restored beside, cut at the moment's offsets, and filled from the log.

Each step may be repeated, and the manifest keeps the moment's offsets from the first run on. So a recovery that was
killed goes on, to the same moment. The steps are: restore, delete rows at or above the offsets by coordinates, fill
what is missing below them, bring session_stats in line, and, in place, exchange the tables.
"""

import time as clock
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from pipeline.catalog import Catalog, Family, RollupSpec
from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.coordinates import OFFSET, PARTITION, TOPIC_ID, Source
from pipeline.clickhouse.engines import replacing_tables
from pipeline.clickhouse.lookups import all_rows
from pipeline.clickhouse.migrate import migrate
from pipeline.clickhouse.session_stats import TABLE as SESSION_STATS
from pipeline.config import Settings
from pipeline.errors import HaltError, UnavailableError
from pipeline.operations.backup.figures import at_or_above
from pipeline.operations.backup.manifest import Manifest
from pipeline.operations.backup.moment import MomentCut, UnreachableError, cuts_at
from pipeline.operations.backup.recovery_plan import RecoveryPlan
from pipeline.operations.backup.restore import bring, check_tables_in
from pipeline.operations.backup.sessions import bring_in_line
from pipeline.operations.lineage.family_log import FamilyLog
from pipeline.operations.lineage.filler import ReplayCounts
from pipeline.operations.lineage.follow import Followed
from pipeline.operations.lineage.opening import open_source
from pipeline.operations.lineage.plan import make_plan
from pipeline.operations.lineage.replay import Result, run
from pipeline.operations.lineage.sources import Order
from pipeline.operations.lineage.spans import Bound
from pipeline.transport.adapter.log_reader import LogReader

_POLL_SECONDS = 0.5
_CHECK = f"""
SELECT count(), uniqExact({PARTITION}, {OFFSET}), countIf({{above}}) FROM `{{table}}`
WHERE {TOPIC_ID} = toUUID('{{topic_id}}')
"""  # noqa: S608 (names of ours)

Report = Callable[[str, int], None]
"""Function that is called with the step that is under way, and with a number of bytes, rows or offsets."""


@dataclass(slots=True)
class Recovered:
    """Result of a recovery."""

    deleted: int = 0
    """Rows of the backup that were too new."""
    counts: dict[str, ReplayCounts] = field(default_factory=dict)
    """Counts of the fills by family."""
    gone: list[str] = field(default_factory=list)
    """Ranges that retention deleted while the recovery ran, in words."""
    rows: dict[str, int] = field(default_factory=dict)
    """Rows with coordinates of the topic, by table."""
    doubled: int = 0
    too_new: int = 0
    closed_before: int | None = None
    """Hour before which session_stats has all hours, as a number since 1970."""
    followed: list[Followed] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def withheld(self) -> int:
        """Rows that weren't filled in, on days with rows of unknown origin."""
        return sum(counts.withheld for counts in self.counts.values())

    @property
    def inserted(self) -> int:
        """Rows that were filled in."""
        return sum(counts.inserted for counts in self.counts.values())

    @property
    def whole(self) -> bool:
        """True if nothing is known to be lost, doubled or too new."""
        return not (self.gone or self.withheld or self.doubled or self.too_new)


def recover(
    settings: Settings,
    catalog: Catalog,
    plan: RecoveryPlan,
    *,
    despite_unknown: bool = False,
    wait_seconds: float = 60.0,
    report: Report = lambda _what, _done: None,
) -> Recovered:
    """Make a recovery, or go on with it.

    Days with rows of unknown origin are filled `despite_unknown` only. Workers have `wait_seconds` to commit.

    Raises:
        DoublesError: the database has tables of other origin.
        UnavailableError: a server doesn't answer, or the workers haven't committed the moment's records.
        HaltError: a server refuses, or the broker's clock was behind the moment.
    """
    plan.check_not_exchanged()
    began, done, record = clock.monotonic(), Recovered(), plan.start.record
    target = settings.model_copy(update={"clickhouse": settings.clickhouse.model_copy(update={"database": plan.into})})
    await_commits(settings, (each for each in catalog.families if plan.follows(each.name)), plan.cuts, wait_seconds)
    tables = check_tables_in(record, (), ())
    bring(settings, record, tables, (), plan.into, facts=_facts(plan), progress=partial(report, "Restoring"))
    migrate(target.clickhouse)
    deleted = _cut_off(settings, target, catalog, plan, done)
    uncovered = deleted.tables & replacing_tables(target.clickhouse)  # a deleted row may have replaced one
    for family in catalog.families:
        if plan.follows(family.name) or family.table in uncovered:
            _fill(
                target, catalog, family, plan, done, uncovered=uncovered, despite_unknown=despite_unknown, report=report
            )
    _check_cuts(settings, catalog, plan)
    if catalog.rollup and SESSION_STATS in tables:
        report("Bringing session_stats in line", 0)
        _follow(target, catalog.rollup, plan, deleted, done)
    _count(target, catalog, plan, done)
    done.seconds = clock.monotonic() - began
    Manifest(settings.clickhouse).note_restore(plan.into, "recovered", {"seconds": round(done.seconds, 3)})
    return done


def await_commits(
    settings: Settings, families: Iterable[Family], cuts: Mapping[str, MomentCut], seconds: float
) -> None:
    """Wait until the group has committed all records of a moment: until then they are the workers'.

    Raises:
        UnavailableError: they aren't committed in time.
    """
    deadline = clock.monotonic() + seconds
    for family in families:
        with LogReader(settings.kafka, family.topic.name) as reader:
            log, ends = FamilyLog(settings, family, reader), cuts[family.name].ends
            while behind := _behind(log.committed(), ends):
                if clock.monotonic() > deadline:
                    number, offset = behind
                    raise UnavailableError(
                        f"topic {family.topic.name}, partition {number}: group {settings.kafka.group_id} has committed "
                        f"{offset}, and the moment has records up to {ends[number]}; expected them to be committed, "
                        "because uncommitted ones are the workers': run the workers, or choose an earlier moment"
                    )
                clock.sleep(_POLL_SECONDS)


def _behind(committed: Mapping[int, int], ends: Mapping[int, int]) -> tuple[int, int] | None:
    return next(
        ((number, committed.get(number, 0)) for number, end in ends.items() if committed.get(number, 0) < end), None
    )


def _cut_off(settings: Settings, target: Settings, catalog: Catalog, plan: RecoveryPlan, done: Recovered) -> "_Deleted":
    """Delete rows at or above the moment's offsets; return what this run and killed ones have deleted."""
    manifest = Manifest(settings.clickhouse)
    last, source = manifest.restore_of(plan.into), catalog.rollup.source.name if catalog.rollup else ""
    deleted = _Deleted(set(last.get("hours", ())), set(last.get("deleted", ())))
    with explained(target.clickhouse), connect(target.clickhouse) as client:
        for family, cut in _there(client, catalog, plan):
            where = at_or_above(cut.topic_id, cut.ends)
            count = all_rows(client, f"SELECT count() FROM `{family.table}` WHERE {where}")[0][0]  # noqa: S608 (ours)
            if not count:
                continue
            deleted.tables.add(family.table)
            if family.name == source:
                deleted.hours.update(_hours(client, family.table, where))
            facts = {"hours": sorted(deleted.hours), "deleted": sorted(deleted.tables)}
            manifest.note_restore(plan.into, "deleting", facts)
            client.execute(f"ALTER TABLE `{family.table}` DELETE WHERE {where} SETTINGS mutations_sync = 2")
            done.deleted += count
    return deleted


class _Deleted(NamedTuple):
    """Hours of deleted rows of the rollup's source, and the tables of all deleted rows."""

    hours: set[int]
    tables: set[str]


def _fill(
    target: Settings,
    catalog: Catalog,
    family: Family,
    plan: RecoveryPlan,
    done: Recovered,
    *,
    uncovered: Collection[str],
    despite_unknown: bool,
    report: Report,
) -> None:
    """Insert the rows of a family between the backup and the moment; of uncovered tables all before it, too."""
    report(f"Filling {family.name}", 0)
    cut = plan.cuts[family.name]
    first = dict.fromkeys(cut.ends, 0) if family.table in uncovered else plan.firsts(family.name)
    order = Order(family, Bound(by_partition=first), Bound(by_partition=cut.ends), despite_unknown=despite_unknown)
    result = Result()
    with explained(target.clickhouse), open_source(target, catalog, order) as source:
        made = make_plan(target, order, source)
        run(target, made, source, result, report=lambda now: report(f"Filling {family.name}", now.counts.passed))
    done.counts[family.name] = result.counts
    done.gone += [
        f"{family.topic.name}, partition {each.partition}, offsets {each.first} to {each.next_offset - 1}"
        for each in result.deleted
    ]


def _check_cuts(settings: Settings, catalog: Catalog, plan: RecoveryPlan) -> None:
    """Check that no record has come below the moment since its offsets were asked for.

    Raises:
        HaltError: one has, because a broker's clock was behind the moment.
    """
    try:
        now = cuts_at(settings, catalog, plan.time)
    except UnreachableError:  # retention has passed the moment since; its offsets are kept
        return
    for family, cut in plan.cuts.items():
        for number, end in now[family].ends.items():
            if end > cut.ends.get(number, 0) and cut.topic_id == now[family].topic_id:
                raise HaltError(
                    f"topic {cut.topic}, partition {number}: the broker has given timestamps before "
                    f"{plan.time.isoformat()} to offsets {cut.ends.get(number, 0)} to {end - 1}: its clock "
                    f"is behind; expected a moment that has passed: drop database {plan.into}, and recover again"
                )


def _follow(target: Settings, rollup: RollupSpec, plan: RecoveryPlan, deleted: "_Deleted", done: Recovered) -> None:
    """Bring session_stats in line with ui_events at the moment."""
    touched = deleted.hours | _hours_above(target, rollup.source, plan)
    done.closed_before, done.followed = bring_in_line(
        target, rollup, plan.cuts[rollup.source.name], plan.time, start=plan.start, touched=touched
    )


def _hours_above(target: Settings, source: Family, plan: RecoveryPlan) -> set[int]:
    """Return the hours of rows at or above the backup's offsets: a fill may have added any of them."""
    noted, cut = plan.start.record.noted.get(source.name), plan.cuts[source.name]
    where = at_or_above(cut.topic_id, noted.offsets if noted else {})
    with explained(target.clickhouse), connect(target.clickhouse) as client:
        return _hours(client, source.table, where)


def _hours(client: Any, table: str, where: str) -> set[int]:
    query = f"SELECT DISTINCT intDiv(toUnixTimestamp64Milli(ts), 3600000) FROM `{table}` WHERE {where}"  # noqa: S608 (ours)
    return {number for (number,) in all_rows(client, query)}


def _count(target: Settings, catalog: Catalog, plan: RecoveryPlan, done: Recovered) -> None:
    with explained(target.clickhouse), connect(target.clickhouse) as client:
        for family, cut in _there(client, catalog, plan):
            above, topic_id = at_or_above(cut.topic_id, cut.ends), Source.of(cut.topic_id, 0).topic_id
            query = _CHECK.format(table=family.table, topic_id=topic_id, above=above)
            rows, different, too_new = all_rows(client, query)[0]
            done.rows[family.table] = rows
            done.doubled += rows - different
            done.too_new += too_new


def _there(client: Any, catalog: Catalog, plan: RecoveryPlan) -> Iterator[tuple[Family, MomentCut]]:
    names = {name for (name,) in all_rows(client, "SELECT name FROM system.tables WHERE database = currentDatabase()")}
    for family in catalog.families:
        if family.table in names:
            yield family, plan.cuts[family.name]


def _facts(plan: RecoveryPlan) -> dict[str, Any]:
    """Return the moment and its offsets for the manifest."""
    cuts = {
        family: {"topic_id": cut.topic_id, "ends": {str(number): end for number, end in cut.ends.items()}}
        for family, cut in plan.cuts.items()
    }
    return {"to": plan.time.isoformat(), "cuts": cuts}
