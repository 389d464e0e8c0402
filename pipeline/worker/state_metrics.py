"""Metrics that are read from the worker's state when they are asked for: partitions, newest events, troubles."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pipeline.transport.consumer import MicroBatchConsumer
from pipeline.troubles import Troubles
from pipeline.worker.family_metrics import FamilyMetrics


class StateMetrics(Collector):
    """Collects the state at each request for metrics, so that a partition that has moved leaves no sample behind.

    Args:
        consumer: returns the transport's consumer; None before the worker is in its group.
        families: metrics by family; they know the newest events.
        troubles: troubles of the worker's parts.
        now: seconds since 1970.
    """

    def __init__(
        self,
        consumer: Callable[[], MicroBatchConsumer | None],
        families: Mapping[str, FamilyMetrics],
        troubles: Troubles,
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._consumer = consumer
        self._newest = families
        self._troubles = troubles
        self._now = now

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Return the metrics without samples."""
        return _families().values()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics with their samples."""
        families = _families()
        if consumer := self._consumer():
            _add_partitions(families, consumer)
        now = self._now()
        for family, counted in sorted(self._newest.items()):
            if counted.newest_event_ms is not None:
                at = counted.newest_event_ms / 1000
                families["chimera_newest_event_timestamp_seconds"].add_metric([family], at)
                families["chimera_newest_event_age_seconds"].add_metric([family], now - at)
        troubles = self._troubles.seconds
        for part, seconds in sorted(troubles.items()):
            families["chimera_trouble_seconds"].add_metric([part], seconds)
        families["chimera_ready"].add_metric([], not troubles)
        yield from families.values()


def _add_partitions(families: Mapping[str, GaugeMetricFamily], consumer: MicroBatchConsumer) -> None:
    ends, assignment = consumer.end_offsets(), consumer.member.assignment
    for tp, partition in sorted(assignment.partitions.items()):
        labels = [tp.topic, str(tp.partition)]
        families["chimera_committed_offset"].add_metric(labels, partition.on_broker.state.offset)
        if tp in ends:
            families["chimera_end_offset"].add_metric(labels, ends[tp])
    for topic, number in Counter(tp.topic for tp in assignment.partitions).items():
        families["chimera_assigned_partitions"].add_metric([topic], number)
    families["chimera_held_bytes"].add_metric([], assignment.held_bytes)


def _families() -> dict[str, GaugeMetricFamily]:
    declared: tuple[tuple[str, str, list[str]], ...] = (
        ("chimera_ready", "1 while records can flow, else 0; the same as /ready.", []),
        ("chimera_trouble_seconds", "Time for which a part of the worker has been in trouble.", ["part"]),
        ("chimera_assigned_partitions", "Partitions that this worker has.", ["topic"]),
        ("chimera_committed_offset", "Committed offset: the first record that isn't done.", ["topic", "partition"]),
        ("chimera_end_offset", "End of the log, as of the last fetch.", ["topic", "partition"]),
        (
            "chimera_newest_event_timestamp_seconds",
            "Time of the newest event that this worker has stored, in seconds since 1970.",
            ["family"],
        ),
        ("chimera_newest_event_age_seconds", "Age of the newest event that this worker has stored.", ["family"]),
        ("chimera_held_bytes", "Bytes of fetched records in memory.", []),
    )
    return {name: GaugeMetricFamily(name, text, labels=labels) for name, text, labels in declared}
