"""The dead letters of one family: an index of the whole topic, and the records one by one."""

from collections.abc import Iterator, Sequence

from pipeline.catalog import Family
from pipeline.config import KafkaSettings
from pipeline.dlq.index import CLAIM_SECONDS, Index, Selection
from pipeline.dlq.letters import DlqRecord, Letter, read_record
from pipeline.kafka.failures import check_connection
from pipeline.kafka.offsets import TopicReader

PAGE = 500
"""Most dead letters in one page, and in one receipt."""


class Reading:
    """A dead-letter topic, read to the end it had at first.

    Methods that ask the broker raise UnavailableError if it doesn't answer, HaltError if it refuses.

    Args:
        settings: the broker.
        family: owner of the dead letters.
        claim_seconds: age at which a claim no longer holds.
    """

    def __init__(self, settings: KafkaSettings, family: Family, *, claim_seconds: float = CLAIM_SECONDS) -> None:
        self.family = family
        self.index = Index(family.topic.name, claim_seconds=claim_seconds)
        check_connection(settings)
        self._topic = TopicReader(settings, family.dead_letters.name)
        self._ranges = self._topic.ranges()
        self._read_to = {partition: offsets.stop for partition, offsets in self._ranges.items()}

    def __len__(self) -> int:
        """Most records that there are to read."""
        return sum(map(len, self._ranges.values()))

    def read(self) -> Iterator[None]:
        """Read all records into the index, one per step."""
        for message in self._topic.read(self._ranges):
            self.index.add(read_record(message))
            yield

    def read_receipts(self, partition: int, end: int) -> None:
        """Read newer receipts of a partition, up to this offset; newer dead letters are left for another reading."""
        for message in self._topic.read({partition: range(self._read_to[partition], end)}):
            self.index.add(read_record(message), only_receipts=True)
        self._read_to[partition] = end

    def pages(self, selection: Selection, limit: int = PAGE) -> Iterator[list[Letter]]:
        """Return the selected dead letters in pages, each of one partition."""
        after = (-1, -1)
        while letters := self.index.page(selection, limit, after):
            after = (letters[-1].partition, letters[-1].offset)
            yield letters

    def records(self, letters: Sequence[Letter]) -> Iterator[tuple[Letter, DlqRecord]]:
        """Read the records of dead letters of one partition; those that retention has deleted are left out."""
        by_offset = {letter.offset: letter for letter in letters}
        if letters:
            for message in self._topic.pick(letters[0].partition, sorted(by_offset)):
                record = read_record(message)
                yield by_offset[record.offset], record
