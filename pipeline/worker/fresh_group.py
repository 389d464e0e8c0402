"""Check that a consumer group doesn't store records a second time because it starts at the beginning of a log."""

from collections.abc import Container, Sequence

import numpy as np

from pipeline.catalog import Catalog, Family
from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.lookups import all_rows
from pipeline.clickhouse.samples import mostly_stored
from pipeline.config import KafkaSettings, Settings, env_name
from pipeline.decode.decoder import Decoder
from pipeline.errors import HaltError
from pipeline.kafka.offsets import TopicReader
from pipeline.kafka.registry import SchemaRegistry
from pipeline.transport.broker import Beginning, Suspicion

_ANSWER_SECONDS = 5.0
_FIRST_RECORDS = 50  # of a log that are looked for in the table
_FILLED_TABLES = "SELECT name FROM system.tables WHERE database = currentDatabase() AND total_rows > 0"


def check_group(settings: Settings, catalog: Catalog, topics: Container[str] | None = None) -> None:
    """Check that the group wouldn't consume a topic from its beginning while the table has rows already.

    The tables are checked first, because a worker that starts at the same time commits before it stores a row.

    Args:
        settings: servers and group.
        catalog: families.
        topics: topics to check; all when None.

    Raises:
        HaltError: the group would consume it from its beginning; the message names the topic, and what to do.
        UnavailableError: a server doesn't answer.
    """
    filled = _filled_tables(settings)
    checked = [each for each in catalog.families if topics is None or each.topic.name in topics]
    for family in checked:
        if family.table in filled and (records := _records_of_a_fresh_group(settings.kafka, family.topic.name)):
            raise HaltError(
                f"group {settings.kafka.group_id} has committed no offset of {family.topic.name}, whose {records} "
                f"records would be stored in {settings.clickhouse.database}.{family.table}, which has rows. "
                "If these rows come from the topic, they would be stored a second time: use the group that stored "
                f"them. If the topic was created anew, start once with {_way_out()}"
            )


def check_beginnings(
    settings: Settings, catalog: Catalog, registry: SchemaRegistry | None, beginnings: Sequence[Beginning]
) -> None:
    """Check the same in a running worker, for partitions that would be consumed from the beginning of their logs.

    A partition that was added to a topic is new to the group: other partitions have commits, its log begins at offset
    0, and its first records aren't in the table.

    Raises:
        HaltError: records may be stored a second time; the message names the partition, and what to do.
        UnavailableError: a server doesn't answer.
    """
    for beginning in beginnings:
        if beginning.suspicion is Suspicion.VANISHED:
            raise _refused(settings, beginning, "has no offset any more, which this worker had committed")
    filled = _filled_tables(settings)
    families = {family.topic.name: family for family in catalog.families}
    suspects = [beginning for beginning in beginnings if families[beginning.tp.topic].table in filled]
    check_group(settings, catalog, {beginning.tp.topic for beginning in suspects})
    for beginning in suspects:
        if beginning.suspicion is Suspicion.FOREIGN:
            why = f"has an offset of a topic with another id, {beginning.foreign_id}, as a copied group has"
            raise _refused(settings, beginning, why)
        if beginning.offset > 0:
            raise _refused(settings, beginning, f"has committed no offset, the log begins at {beginning.offset}")
        family = families[beginning.tp.topic]
        if _first_rows_are_stored(settings, family, Decoder(family, registry, settings.validation), beginning):
            raise _refused(settings, beginning, f"has committed no offset, the log's first rows are in {family.table}")


def _first_rows_are_stored(settings: Settings, family: Family, decoder: Decoder, beginning: Beginning) -> bool:
    """Tell whether the table has the rows of a log's first records."""
    topic, partition = beginning.tp
    with TopicReader(settings.kafka, topic, answer_seconds=_ANSWER_SECONDS, silence_seconds=_ANSWER_SECONDS) as reader:
        log = reader.ranges([partition])[partition]
        records = list(reader.read({partition: log[:_FIRST_RECORDS]}))
    rows = decoder.decode(
        [record.value() for record in records], np.array([record.timestamp()[1] for record in records], np.int64)
    )
    with explained(settings.clickhouse), connect(settings.clickhouse) as client:
        return mostly_stored(client, family.table, family.key, rows.columns)


def _refused(settings: Settings, beginning: Beginning, why: str) -> HaltError:
    tp = beginning.tp
    return HaltError(
        f"group {settings.kafka.group_id}, {tp.topic}-{tp.partition}: the group {why}, and records of it may be "
        f"stored: a second time, if they are consumed from the log's beginning; set the group's offset, or, when none "
        f"of them is stored, start once with {_way_out()}"
    )


def _way_out() -> str:
    return f"{env_name('worker', 'allow_fresh_group')}=true"


def _filled_tables(settings: Settings) -> set[str]:
    with explained(settings.clickhouse), connect(settings.clickhouse) as client:
        return {name for (name,) in all_rows(client, _FILLED_TABLES)}


def _records_of_a_fresh_group(settings: KafkaSettings, topic: str) -> int:
    """Return the number of records in the topic; 0 if the group has committed an offset of it."""
    with TopicReader(settings, topic, answer_seconds=_ANSWER_SECONDS) as reader:
        numbers = reader.partitions()
        if any(offset is not None for offset in reader.committed(numbers).values()):
            return 0
        return sum(map(len, reader.ranges(numbers).values()))
