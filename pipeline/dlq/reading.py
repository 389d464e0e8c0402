"""A dead-letter topic that was read to the end it had: what is in it, and the records themselves."""

from collections.abc import Iterator, Sequence

from pipeline.catalog import Family
from pipeline.config import KafkaSettings
from pipeline.dlq.index import Index, Selection
from pipeline.dlq.letters import Letter, Record
from pipeline.dlq.log import Log

PAGE = 500
"""Most dead letters that are looked at together, and that one receipt is about."""


class Reading:
    """The dead letters of one family.

    Raises what `Log` does, from all that asks the broker.

    Args:
        settings: the broker.
        family: whose dead letters these are.
    """

    def __init__(self, settings: KafkaSettings, family: Family) -> None:
        self.family = family
        self.index = Index(family.topic.name)
        self._log = Log(settings, family.dead_letters.name)
        self._spans = self._log.spans()
        self._read_to = {partition: end for partition, (_, end) in self._spans.items()}

    def __len__(self) -> int:
        """Records that there are to read, at most."""
        return sum(end - first for first, end in self._spans.values())

    def read(self) -> Iterator[None]:
        """Read all of them into the index, one a step."""
        for record in self._log.read(self._spans):
            self.index.add(record)
            yield

    def read_receipts(self, partition: int, end: int) -> None:
        """Take note of the receipts that have come since; new dead letters are left for another reading."""
        for record in self._log.read({partition: (self._read_to[partition], end)}):
            self.index.add(record, only_receipts=True)
        self._read_to[partition] = end

    def pages(self, selection: Selection, limit: int = PAGE) -> Iterator[list[Letter]]:
        """The selected ones, some of one partition at a time."""
        after = (-1, -1)
        while letters := self.index.page(selection, limit, after):
            after = (letters[-1].partition, letters[-1].offset)
            yield letters

    def records(self, letters: Sequence[Letter]) -> Iterator[tuple[Letter, Record]]:
        """Dead letters of one partition with their records, but for those that retention has deleted meanwhile."""
        by_offset = {letter.offset: letter for letter in letters}
        if letters:
            for record in self._log.pick(letters[0].partition, sorted(by_offset)):
                yield by_offset[record.offset], record
