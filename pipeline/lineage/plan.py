"""Plan of a replay: the facts about the log, the group's commits and the table that it goes by."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pipeline.catalog import Family
from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.contract import check_tables
from pipeline.clickhouse.coordinates import WITHOUT, Source
from pipeline.clickhouse.lookups import all_rows
from pipeline.clickhouse.pinned_settings import check_user
from pipeline.clickhouse.row_policies import check_row_policies
from pipeline.config import ClickHouseSettings, KafkaSettings, Settings
from pipeline.errors import HaltError
from pipeline.kafka.failures import check_connection
from pipeline.kafka.offsets import TopicReader
from pipeline.kafka.topics import TopicAdmin, check_topics_exist
from pipeline.lineage.filler import Target
from pipeline.lineage.lettered import read_lettered
from pipeline.lineage.spans import Bound, Others, Span, check_partitions, find_gaps, find_others
from pipeline.transport.adapter.log_reader import LogReader
from pipeline.transport.commit_metadata import parse

_EXISTS = "SELECT count() FROM system.tables WHERE database = currentDatabase() AND name = %(table)s"


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


@dataclass(frozen=True, slots=True)
class ReplayPlan:
    """A replay that was checked, and can be made."""

    target: Target
    spans: tuple[Span, ...]
    others: tuple[Others, ...]
    """Days with rows of unknown origin."""

    @property
    def ranges(self) -> dict[int, tuple[range, ...]]:
        """Offsets to read, by partition."""
        return {span.source.partition: span.gaps for span in self.spans}

    @property
    def offsets(self) -> int:
        """Number of offsets to read."""
        return sum(len(gap) for span in self.spans for gap in span.gaps)


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
    table = target.like or target.family.table
    check_row_policies(clickhouse, [table])
    ids = TopicAdmin(kafka).ids([topic.name])
    check_topics_exist(kafka, [topic], ids)
    committed = _committed(kafka, topic.name, ids[topic.name], reader)
    with TopicReader(kafka, topic.name) as log:
        spans = _spans(order, ids[topic.name], committed, log)
        begun_at = {span.source.partition: _begun_at(log, span) for span in spans}
    others: tuple[Others, ...] = ()
    if target.like:
        spans = tuple(replace(span, gaps=(span.offsets,) if span.offsets else ()) for span in spans)
    else:
        with explained(clickhouse), connect(clickhouse) as client:
            spans = find_gaps(client, table, spans)
            others = find_others(client, table, spans[0].source)
    lettered = read_lettered(kafka, order.family, lambda _done, _all: None)
    held = {
        number: lettered.offsets(number, span.offsets, begun_at[number])
        for number, span in ((span.source.partition, span) for span in spans)
    }
    withheld = frozenset[int]() if order.despite_unknown else frozenset(some.day for some in others)
    target = replace(target, topic_id=spans[0].source.topic_id, lettered=held, withheld_days=withheld)
    return ReplayPlan(target, spans, others)


def _target(clickhouse: ClickHouseSettings, order: Order) -> Target:
    """Return the table to fill, after checking that it fits the family."""
    check_user(clickhouse)
    family, like = replace(order.family, table=order.into or order.family.table), ""
    if order.into:
        with explained(clickhouse), connect(clickhouse) as client:
            if not all_rows(client, _EXISTS, {"table": order.into})[0][0]:
                family, like = order.family, order.family.table
    check_tables(clickhouse, [family])
    return Target(replace(family, table=order.into or family.table), WITHOUT, like)


def create_like(clickhouse: ClickHouseSettings, table: str, like: str) -> None:
    """Create a table with the columns, keys and settings of another one, unless it exists.

    Raises:
        HaltError: the server refuses.
        UnavailableError: the server doesn't answer.
    """
    with explained(clickhouse), connect(clickhouse) as client:
        client.execute(f"CREATE TABLE IF NOT EXISTS `{table}` AS `{like}`")


def _committed(kafka: KafkaSettings, topic: str, topic_id: str, reader: LogReader) -> dict[int, int]:
    """Return the committed offset by partition.

    Raises:
        HaltError: a commit is of another topic of this name, so the worker hasn't stored what is below it.
    """
    committed = {}
    for number, commit in reader.commits(kafka.group_id).items():
        where = f"group {kafka.group_id}, topic {topic}, partition {number}"
        ranges = parse(commit.metadata, where, commit.offset, topic_id)
        if ranges is not None and ranges.topic_id != topic_id:
            raise HaltError(
                f"{where}: the committed offset is of topic id {ranges.topic_id}, but the topic has id {topic_id}: it "
                "was created anew; expected a group that has consumed this one: run the worker first"
            )
        committed[number] = commit.offset
    return committed


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
