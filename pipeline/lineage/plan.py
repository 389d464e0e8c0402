"""Plan of a replay: the facts about the log, the group's commits and the table that it goes by."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta

from pipeline.catalog import Family
from pipeline.clickhouse.barrier import is_up
from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.contract import check_tables
from pipeline.clickhouse.coordinates import WITHOUT, Source
from pipeline.clickhouse.lookups import all_rows
from pipeline.clickhouse.pinned_settings import check_user
from pipeline.clickhouse.row_policies import check_row_policies
from pipeline.columns import Ints
from pipeline.config import ClickHouseSettings, KafkaSettings, Settings
from pipeline.errors import ChimeraError, HaltError
from pipeline.kafka.failures import check_connection
from pipeline.kafka.offsets import TopicReader
from pipeline.kafka.topics import TopicAdmin, check_topics_exist
from pipeline.lineage.filler import Target
from pipeline.lineage.lettered import read_lettered
from pipeline.lineage.spans import Bound, Others, Span, check_partitions, find_gaps, find_others
from pipeline.transport.adapter.log_reader import LogReader
from pipeline.transport.commit_metadata import parse

_EPOCH = date(1970, 1, 1)
_ENGINE = "SELECT engine FROM system.tables WHERE database = currentDatabase() AND name = %(table)s"


@dataclass(frozen=True, slots=True)
class Order:
    """A replay as the user asks for it."""

    family: Family
    begin: Bound
    end: Bound
    """End, exclusive."""
    into: str | None = None
    """Table to fill in the place of the family's own."""
    despite_unknown: bool = False
    """True to fill days that have rows of unknown origin, too."""
    days: tuple[date, ...] = ()
    """Days to make anew; empty to fill."""
    keep_unknown: bool = False
    """True to keep rows of unknown origin in days that are made anew."""
    allow_removal: bool = False
    """True to remove rows of these days whose records make no row of them any more."""


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """A replay that was checked, and can be made."""

    target: Target
    topic_id: str
    """As Kafka's clients write it."""
    spans: tuple[Span, ...]
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


def make_plan(settings: Settings, order: Order, reader: LogReader) -> ReplayPlan:
    """Gather the facts; changes nothing.

    Args:
        settings: broker, group and ClickHouse.
        order: the order.
        reader: of the family's topic.

    Raises:
        ConfigError: a bound names a partition that the topic lacks.
        UnavailableError: a server doesn't answer.
        HaltError: a server refuses, or topic, table or commits aren't as expected.
    """
    kafka, clickhouse, topic = settings.kafka, settings.clickhouse, order.family.topic
    check_connection(kafka)
    target = _target(clickhouse, order)
    check_row_policies(clickhouse, [target.like or target.family.table])
    topic_id = _topic_id(kafka, order.family)
    committed = {number: offset for number, (offset, _) in _commits(kafka, topic.name, topic_id, reader).items()}
    if order.days and order.begin == Bound():
        order = replace(order, begin=_first_that_may_have(min(order.days), settings))
    with TopicReader(kafka, topic.name) as log:
        spans = _spans(order, topic_id, committed, log)
        lettered = _lettered(kafka, order.family, spans, log)
    spans, others, left = _compared(clickhouse, target, spans)
    days = target.only_days or order.despite_unknown
    target = replace(
        target,
        topic_id=spans[0].source.topic_id,
        lettered=lettered,
        withheld_days=frozenset() if days else frozenset(some.day for some in others),
    )
    return ReplayPlan(target, topic_id, spans, others, left)


def _topic_id(kafka: KafkaSettings, family: Family) -> str:
    ids = TopicAdmin(kafka).ids([family.topic.name])
    check_topics_exist(kafka, [family.topic], ids)
    return ids[family.topic.name]


def _lettered(kafka: KafkaSettings, family: Family, spans: Iterable[Span], log: TopicReader) -> dict[int, Ints]:
    """Return the offsets of dead-lettered records within spans, by partition."""
    lettered = read_lettered(kafka, family, lambda _done, _all: None)
    return {
        span.source.partition: lettered.offsets(span.source.partition, span.offsets, _begun_at(log, span))
        for span in spans
    }


def _compared(
    clickhouse: ClickHouseSettings, target: Target, spans: tuple[Span, ...]
) -> tuple[tuple[Span, ...], tuple[Others, ...], bool]:
    """Compare spans with the table: return them with their gaps, days of unknown origin, and if there is a barrier."""
    with explained(clickhouse), connect(clickhouse) as client:
        table = target.family.table
        if target.like:
            return _as_gaps(spans), (), False
        others, left = find_others(client, table, spans[0].source), is_up(client, table)
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
            f"{some.foreign:,} of another topic, of which the log can't make new ones; expected none: add "
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
        client.execute(f"CREATE TABLE IF NOT EXISTS `{table}` AS `{like}`")


def _first_that_may_have(day: date, settings: Settings) -> Bound:
    """Return the time before which no record has a valid event of this day or of a later one."""
    begins = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return Bound(time=begins - timedelta(seconds=settings.validation.max_ahead_seconds))


def committed_offsets(kafka: KafkaSettings, plan: ReplayPlan, reader: LogReader) -> dict[int, int]:
    """Return the offsets that the group has committed by now, by partition.

    Raises:
        HaltError, UnavailableError: as `make_plan`.
    """
    return {number: offset for number, (offset, _) in _commits_of(kafka, plan, reader).items()}


def recorded_ends(kafka: KafkaSettings, plan: ReplayPlan, reader: LogReader) -> dict[int, int]:
    """Return the offsets behind all ranges that are recorded beside the committed offsets by now, by partition.

    Raises:
        HaltError, UnavailableError: as `make_plan`.
    """
    commits = _commits_of(kafka, plan, reader)
    return {number: max(offset, *(end + 1 for end in ends), 0) for number, (offset, ends) in commits.items()}


def _commits_of(kafka: KafkaSettings, plan: ReplayPlan, reader: LogReader) -> dict[int, tuple[int, tuple[int, ...]]]:
    return _commits(kafka, plan.target.family.topic.name, plan.topic_id, reader)


def _commits(
    kafka: KafkaSettings, topic: str, topic_id: str, reader: LogReader
) -> dict[int, tuple[int, tuple[int, ...]]]:
    """Return the committed offset, and the ends of the ranges in flight, by partition.

    Raises:
        HaltError: a commit is of another topic of this name, so the worker hasn't stored what is below it.
    """
    commits = {}
    for number, commit in reader.commits(kafka.group_id).items():
        where = f"group {kafka.group_id}, topic {topic}, partition {number}"
        ranges = parse(commit.metadata, where, commit.offset, topic_id)
        if ranges is not None and ranges.topic_id != topic_id:
            raise HaltError(
                f"{where}: the committed offset is of topic id {ranges.topic_id}, but the topic has id {topic_id}: it "
                "was created anew; expected a group that has consumed this one: run the worker first"
            )
        commits[number] = commit.offset, () if ranges is None else ranges.ends
    return commits


def _spans(order: Order, topic_id: str, committed: Mapping[int, int], topic: TopicReader) -> tuple[Span, ...]:
    numbers = topic.partitions()
    check_partitions((order.begin, order.end), numbers, topic.topic)
    begins, ends = (
        topic.first_since(round(bound.time.timestamp() * 1000), numbers) if bound.time else {}
        for bound in (order.begin, order.end)
    )
    spans = []
    for number, log in topic.ranges(numbers).items():
        limit = committed.get(number, 0)
        if limit > log.stop:
            raise HaltError(
                f"topic {topic.topic}, partition {number}: committed offset {limit}, but the log ends at {log.stop}; "
                "expected a log that has all committed offsets: was the topic created anew? Run the worker first"
            )
        # After the last record there is none at or after the time: the end of the log stands for it.
        first = order.begin.of(number, begins, 0 if order.begin.time is None else log.stop)
        last = min(order.end.of(number, ends, log.stop), limit)
        offsets = range(max(first, log.start), max(first, log.start, last))
        deleted = len(range(first, min(log.start, last)))
        spans.append(Span(Source.of(topic_id, number), offsets, deleted))
    return tuple(spans)


def _begun_at(topic: TopicReader, span: Span) -> int:
    """Return the timestamp in ms of the first record of a span; 0 without one."""
    if not span.offsets:
        return 0
    for messages in topic.batches(span.source.partition, span.offsets):
        return int(messages[0].timestamp()[1])
    return 0
