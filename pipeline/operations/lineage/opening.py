"""Opens the source that an order names."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.catalog import Catalog, Family
from pipeline.config import Settings
from pipeline.operations.lineage.avro_file import MAGIC, AvroFile
from pipeline.operations.lineage.dump import GZIP_MAGIC
from pipeline.operations.lineage.dump_file import DumpFile
from pipeline.operations.lineage.family_log import FamilyLog
from pipeline.operations.lineage.files import opened
from pipeline.operations.lineage.other_topic import OtherTopic
from pipeline.operations.lineage.sources import Order, RecordSource, SourceError, check_source
from pipeline.transport.adapter.log_reader import LogReader


@contextmanager
def open_source(settings: Settings, catalog: Catalog, order: Order) -> Iterator[RecordSource]:
    """Yield the source of an order: the family's own log, unless the order names another topic or a file.

    Args:
        settings: broker, group, and limits on the times of events.
        catalog: topics and their roles.
        order: the order.

    Raises:
        SourceError: the topic or the file is no source for this family.
    """
    family = order.family
    if order.source_topic:
        check_source(catalog, family, order.source_topic)
        with LogReader(settings.kafka, order.source_topic) as reader:
            yield OtherTopic(settings.kafka, order.source_topic, reader)
        return
    with LogReader(settings.kafka, family.topic.name) as reader:
        log = FamilyLog(settings, family, reader)
        yield _file(settings, catalog, order.file, family, log) if order.file else log


def _file(settings: Settings, catalog: Catalog, path: Path, family: Family, log: FamilyLog) -> RecordSource:
    """Return the source that a file is, by its first bytes."""
    with opened(path) as file:
        head = file.peek(len(MAGIC))[: len(MAGIC)]
    if head == MAGIC:
        return AvroFile(path, family)
    if head.startswith((GZIP_MAGIC, b"{")):
        return DumpFile(settings.kafka, catalog, path, log)
    raise SourceError(
        f"{path}: byte 0: neither the beginning of an Avro container file nor that of a raw dump (JSON Lines, or the "
        "same in gzip); expected one of these"
    )
