"""Log of another topic on the same broker, with events of a family: an old topic, a mirror, a test."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from pipeline.config import KafkaSettings
from pipeline.kafka.failures import check_connection
from pipeline.kafka.offsets import TopicReader
from pipeline.kafka.topics import TopicAdmin
from pipeline.operations.lineage.family_log import spans_of
from pipeline.operations.lineage.sources import Order, Progress, SourceError, Surveyed
from pipeline.transport.adapter.log_reader import LogReader
from pipeline.transport.stretches import LogStretch


class OtherTopic:
    """Log of a topic that no worker consumes for the table; its rows have the coordinates of this topic.

    Args:
        kafka: the broker.
        name: name of the topic.
        reader: of the topic.
    """

    def __init__(self, kafka: KafkaSettings, name: str, reader: LogReader) -> None:
        self._kafka = kafka
        self._name = name
        self._reader = reader

    def survey(self, order: Order, _progress: Progress, /) -> Surveyed:
        """Return the offsets that the log holds now, and that were asked for.

        Raises:
            SourceError: there is no such topic.
            ConfigError: a bound names a partition that the topic lacks.
            UnavailableError, HaltError: Kafka doesn't answer, or refuses.
        """
        check_connection(self._kafka)
        ids = TopicAdmin(self._kafka).ids([self._name])
        if self._name not in ids:
            raise SourceError(
                f"Kafka at {self._kafka.bootstrap_servers} has no topic {self._name}; expected the name of a topic "
                f"with events of {order.family.name}"
            )
        # The end is that of committed transactions: no record behind an open one can be read.
        with TopicReader(self._kafka, self._name, only_committed=True) as log:
            spans = spans_of(order, ids[self._name], log)
        return Surveyed(f"topic {self._name}", spans[0].source.topic_id, spans)

    def read(
        self, ranges: Mapping[int, Sequence[range]], wanted: Callable[[], bool] = lambda: True
    ) -> Iterator[LogStretch]:
        """Read ranges of the log; see `RecordSource`."""
        return self._reader.read(ranges, wanted)
