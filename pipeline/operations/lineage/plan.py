"""Plan of a replay: the facts about its source and its table that it goes by."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import date, timedelta

from pipeline.clickhouse import likeness
from pipeline.clickhouse.barrier import is_up
from pipeline.clickhouse.catching_up import catch_up
from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.contract import check_tables
from pipeline.clickhouse.coordinates import WITHOUT
from pipeline.clickhouse.dependent_views import check_views
from pipeline.clickhouse.engines import check_engines
from pipeline.clickhouse.lookups import all_rows
from pipeline.clickhouse.pinned_settings import check_user
from pipeline.clickhouse.row_policies import check_row_policies
from pipeline.config import ClickHouseSettings, Settings
from pipeline.errors import ChimeraError, HaltError
from pipeline.operations.lineage.filler import Target
from pipeline.operations.lineage.sources import Order, Progress, RecordSource, Surveyed, ignore
from pipeline.operations.lineage.spans import Others, Span, find_gaps, find_others

_EPOCH = date(1970, 1, 1)
_ENGINE = "SELECT engine, partition_key FROM system.tables WHERE database = currentDatabase() AND name = %(table)s"
_BY_DAY = "toDate(ts)"  # of `ts` in UTC, whatever the server's time zone


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """A replay that was checked, and can be made."""

    target: Target
    source: Surveyed
    spans: tuple[Span, ...]
    """Those of the source, with their gaps."""
    others: tuple[Others, ...]
    """Days with rows of unknown origin; of a rewrite only its own days."""
    barrier: bool = False
    """True if a killed rewrite has left a barrier on the table."""

    @property
    def dates(self) -> tuple[date, ...]:
        """Days that are made anew, in their order; empty for a fill."""
        return tuple(_EPOCH + timedelta(days=day) for day in sorted(self.target.only_days or ()))

    @property
    def ranges(self) -> dict[int, tuple[range, ...]]:
        """Offsets to read, by partition."""
        return {span.source.partition: span.gaps for span in self.spans}

    @property
    def offsets(self) -> int:
        """Number of offsets to read."""
        return sum(len(gap) for span in self.spans for gap in span.gaps)


class RemovalError(ChimeraError):
    """A rewrite would remove rows; nothing was changed."""


def make_plan(settings: Settings, order: Order, source: RecordSource, progress: Progress = ignore) -> ReplayPlan:
    """Gather the facts; changes nothing.

    Args:
        settings: ClickHouse.
        order: the order.
        source: source of the records.
        progress: called while a file is read.

    Raises:
        ConfigError: a bound names a partition that the topic lacks.
        SourceError: the source is no source for this table, or a file is damaged.
        UnavailableError: a server doesn't answer.
        HaltError: a server refuses, or topic, table or commits aren't as expected.
    """
    clickhouse = settings.clickhouse
    target = _target(clickhouse, order)
    check_row_policies(clickhouse, [target.like or target.family.table])
    surveyed = source.survey(order, progress)
    spans, others, left = _compared(clickhouse, target, surveyed)
    days = target.only_days or order.despite_unknown
    target = replace(
        target,
        topic_id=surveyed.topic_id,
        lettered=surveyed.lettered,
        withheld_days=frozenset() if days else frozenset(some.day for some in others),
    )
    return ReplayPlan(target, surveyed, spans, others, left)


def _compared(
    clickhouse: ClickHouseSettings, target: Target, surveyed: Surveyed
) -> tuple[tuple[Span, ...], tuple[Others, ...], bool]:
    """Return the spans of a source with their gaps, the days of unknown origin, and if there is a barrier."""
    with explained(clickhouse), connect(clickhouse) as client:
        table, spans = target.family.table, surveyed.spans
        if target.like:
            return _as_gaps(spans), (), False
        catch_up(client, table)
        others, left = find_others(client, table, surveyed.topic_id), is_up(client, table)
        if target.only_days:
            return _as_gaps(spans), tuple(some for some in others if some.day in target.only_days), left
        return find_gaps(client, table, spans), others, left


def _as_gaps(spans: Iterable[Span]) -> tuple[Span, ...]:
    return tuple(replace(span, gaps=(span.offsets,) if span.offsets else ()) for span in spans)


def check_kept(plan: ReplayPlan, order: Order) -> None:
    """Check that a rewrite loses no row of unknown origin.

    Raises:
        RemovalError: a day has some, and the user hasn't said that they are kept.
    """
    if plan.dates and plan.others and not order.keep_unknown:
        some = plan.others[0]
        raise RemovalError(
            f"table {plan.target.family.table}: {some.date} has {some.without:,} rows without coordinates and "
            f"{some.foreign:,} of another topic or a file, of which the log can't make new ones; expected none: add "
            "--keep-unknown to keep them as they are, if they aren't of the same records"
        )


def _target(clickhouse: ClickHouseSettings, order: Order) -> Target:
    """Return the table to fill, after checking that it fits the family."""
    check_user(clickhouse)
    table, like = order.into or order.family.table, ""
    with explained(clickhouse), connect(clickhouse) as client:
        engine = all_rows(client, _ENGINE, {"table": table})
        if order.into and not engine:
            like = order.family.table
            engine = all_rows(client, _ENGINE, {"table": like})
    check_tables(clickhouse, [replace(order.family, table=like or table)])
    check_engines(clickhouse, [table], {table: order.family.table})
    check_views(clickhouse, [table])
    if order.days and engine[0][1] != _BY_DAY:
        raise HaltError(
            f"table {clickhouse.database}.{table} at {clickhouse.address}: partition key {engine[0][1] or 'none'}: "
            f"expected {_BY_DAY}, because a day is exchanged as a partition, and others would lose rows: fill without "
            "--day, or replay --into another table"
        )
    days = frozenset((day - _EPOCH).days for day in order.days)
    replaces = "Replacing" in engine[0][0]
    return Target(replace(order.family, table=table), WITHOUT, like, replaces=replaces, only_days=days or None)


def create_like(clickhouse: ClickHouseSettings, table: str, like: str) -> None:
    """Create a table with the columns, keys and settings of another one, unless it exists.

    Raises:
        HaltError: the server refuses.
        UnavailableError: the server doesn't answer.
    """
    with explained(clickhouse), connect(clickhouse) as client:
        likeness.create_like(client, table, like, if_missing=True)
