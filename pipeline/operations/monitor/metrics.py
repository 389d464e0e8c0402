"""The model as metrics in OpenMetrics form. docs/monitor.md lists them; a test compares the list with `METRICS`.

A value that isn't known has no sample: while Kafka is away, there is no lag, and `chimera_monitor_up` is 0.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from typing import Any

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, StateSetMetricFamily
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from pipeline.operations.monitor.state import BackupState, Consumption, FamilyState, Health, PipelineState

CONTENT_TYPE = CONTENT_TYPE_LATEST

_Sample = tuple[tuple[str, ...], float | datetime | None]


@dataclass(frozen=True, slots=True)
class MonitorMetric:
    """A gauge or a counter, and its samples in a state."""

    name: str
    text: str
    labels: tuple[str, ...]
    samples: Callable[[PipelineState], Iterable[_Sample]]
    counter: bool = False


def _by_server(state: PipelineState) -> Iterator[_Sample]:
    for name, server in (("kafka", state.kafka), ("clickhouse", state.clickhouse)):
        if server.verdict is not Health.UNKNOWN:
            yield (name,), float(server.verdict is Health.OK)


def _families(state: PipelineState) -> tuple[FamilyState, ...]:
    return state.families if state.kafka.verdict is Health.OK else ()


def _of_family(read: Callable[[FamilyState], float | None]) -> Callable[[PipelineState], Iterator[_Sample]]:
    return lambda state: (((each.name,), read(each)) for each in _families(state))


def _of_partition(read: Callable[[Any], float | None]) -> Callable[[PipelineState], Iterator[_Sample]]:
    return lambda state: (
        ((each.name, str(part.partition)), read(part)) for each in _families(state) for part in each.partitions
    )


def _of_table(read: Callable[[Any], float | datetime | None]) -> Callable[[PipelineState], Iterator[_Sample]]:
    return lambda state: (
        ((table.name,), read(table)) for table in state.tables if state.clickhouse.verdict is Health.OK
    )


def _of_disk(read: Callable[[Any], float]) -> Callable[[PipelineState], Iterator[_Sample]]:
    return lambda state: (
        ((disk.name,), read(disk)) for disk in state.storage.disks if state.clickhouse.verdict is Health.OK
    )


def _letters(state: PipelineState) -> Iterator[_Sample]:
    for family in state.families:
        if family.dead_letters.unsettled is not None:
            yield from (((family.name, reason), count) for reason, count in family.dead_letters.reasons.items())


def _oldest_letter(state: PipelineState) -> Iterator[_Sample]:
    for family in state.families:
        if family.dead_letters.unsettled is not None:
            yield (family.name,), family.dead_letters.oldest_seconds or 0.0


def _backup(read: Callable[[BackupState], float | datetime | None]) -> Callable[[PipelineState], list[_Sample]]:
    return lambda state: [((), read(state.backup))] if state.clickhouse.verdict is Health.OK else []


def _troubles(state: PipelineState) -> Iterator[_Sample]:
    for trouble in state.troubles:
        yield (trouble.id, trouble.where, trouble.severity), 1.0


METRICS = (
    MonitorMetric("up", "1 if the server answered the last look, else 0.", ("server",), _by_server),
    MonitorMetric(
        "lag_records",
        "Records that aren't consumed; all records of a partition without a commit.",
        ("family", "partition"),
        _of_partition(lambda part: part.lag_records),
    ),
    MonitorMetric(
        "lag_seconds",
        "Age of the first record that isn't consumed; 0 without lag.",
        ("family", "partition"),
        _of_partition(lambda part: part.lag_seconds),
    ),
    MonitorMetric(
        "end_offset",
        "Offset behind the last record of a partition.",
        ("family", "partition"),
        _of_partition(lambda part: part.end),
    ),
    MonitorMetric(
        "committed_offset",
        "Offset that the group has committed; no sample without a commit.",
        ("family", "partition"),
        _of_partition(lambda part: part.committed),
    ),
    MonitorMetric(
        "retention_left_seconds",
        "Time until Kafka may delete records that aren't consumed; no sample without lag.",
        ("family",),
        _of_family(lambda each: each.retention_left_seconds),
    ),
    MonitorMetric(
        "lost_records",
        "Records that retention deleted before they were consumed, between a commit and the log's beginning.",
        ("family",),
        _of_family(lambda each: each.lost_records),
    ),
    MonitorMetric(
        "uncommitted_partitions",
        "Partitions with records and without a commit.",
        ("family",),
        _of_family(lambda each: each.uncommitted),
    ),
    MonitorMetric(
        "unowned_partitions",
        "Partitions that no worker has.",
        ("family",),
        _of_family(lambda each: each.unowned),
    ),
    MonitorMetric(
        "leaderless_partitions",
        "Partitions that no broker leads, or whose leader doesn't answer.",
        ("family",),
        _of_family(lambda each: len(each.leaderless)),
    ),
    MonitorMetric(
        "group_members",
        "Workers in the consumer group.",
        (),
        lambda state: [((), float(len(state.group.members)))] if state.kafka.verdict is Health.OK else [],
    ),
    MonitorMetric(
        "rejected_ratio",
        "Share of the records consumed lately that became dead letters; no sample with few records.",
        ("family",),
        _of_family(lambda each: each.rejected_ratio),
    ),
    MonitorMetric("dead_letters_unsettled", "Dead letters that wait for a person.", ("family", "reason"), _letters),
    MonitorMetric(
        "dead_letters_oldest_seconds",
        "Age of the oldest dead letter that waits for a person; 0 without any.",
        ("family",),
        _oldest_letter,
    ),
    MonitorMetric("table_rows", "Rows of a table.", ("table",), _of_table(lambda table: table.rows)),
    MonitorMetric(
        "table_rows_last_hour",
        "Rows that came in the last hour, or since the monitor's start; negative if rows were deleted.",
        ("table",),
        _of_table(lambda table: table.rows_last_hour),
    ),
    MonitorMetric(
        "table_newest_event_timestamp_seconds",
        "Greatest time of an event in a table; no sample without rows.",
        ("table",),
        _of_table(lambda table: table.newest_event),
    ),
    MonitorMetric(
        "table_newest_stored_timestamp_seconds",
        "Time of the last insert; no sample without rows.",
        ("table",),
        _of_table(lambda table: table.newest_stored),
    ),
    MonitorMetric("table_bytes", "Bytes of a table on disk.", ("table",), _of_table(lambda table: table.bytes_on_disk)),
    MonitorMetric("table_parts", "Parts of a table.", ("table",), _of_table(lambda table: table.parts)),
    MonitorMetric(
        "table_most_parts", "Parts of the day with the most.", ("table",), _of_table(lambda table: table.most_parts)
    ),
    MonitorMetric(
        "merges",
        "Merges that ClickHouse is doing in the database.",
        (),
        lambda state: [((), state.storage.merges)] if state.clickhouse.verdict is Health.OK else [],
    ),
    MonitorMetric("disk_free_bytes", "Free bytes of a disk.", ("disk",), _of_disk(lambda disk: disk.free_bytes)),
    MonitorMetric("disk_total_bytes", "Bytes of a disk.", ("disk",), _of_disk(lambda disk: disk.total_bytes)),
    MonitorMetric(
        "clickhouse_errors",
        "Errors of ClickHouse since the monitor's start, by its name; those of all its users.",
        ("error",),
        lambda state: [((name,), float(count)) for name, count in state.storage.errors.items()],
        counter=True,
    ),
    MonitorMetric(
        "rollup_open_windows",
        "Windows of session_stats that aren't stored yet, by the newest snapshots.",
        (),
        lambda state: [((), state.rollup.open_windows)] if state.rollup else [],
    ),
    MonitorMetric(
        "rollup_watermark_timestamp_seconds",
        "Least watermark of the partitions of ui_events, by the newest snapshots.",
        (),
        lambda state: [((), state.rollup.watermark)] if state.rollup else [],
    ),
    MonitorMetric(
        "rollup_newest_hour_timestamp_seconds",
        "Greatest hour in session_stats.",
        (),
        lambda state: [((), state.rollup.newest_hour)] if state.rollup else [],
    ),
    MonitorMetric(
        "rollup_snapshot_timestamp_seconds",
        "Time of the newest snapshot; without new records there is no new one.",
        (),
        lambda state: [((), state.rollup.snapshot_at)] if state.rollup else [],
    ),
    MonitorMetric(
        "rollup_unsaved_seconds",
        "Time for which consumed records of ui_events have waited for a snapshot; 0 without any.",
        (),
        lambda state: [((), state.rollup.unsaved_seconds)] if state.rollup else [],
    ),
    MonitorMetric(
        "backup_age_seconds",
        "Time since the newest whole backup began; no sample without one.",
        (),
        _backup(lambda backup: backup.age_seconds),
    ),
    MonitorMetric(
        "backup_failed",
        "1 if the last backup that ended has failed, else 0.",
        (),
        _backup(lambda backup: None if backup.last_failed is None else float(backup.last_failed)),
    ),
    MonitorMetric(
        "backup_verified_timestamp_seconds",
        "Time of the last verification of a backup that found no difference; no sample without one.",
        (),
        _backup(lambda backup: backup.verified_at),
    ),
    MonitorMetric("trouble", "1 for each trouble that the page shows.", ("trouble", "where", "severity"), _troubles),
)
"""All metrics but the state of each partition, the state of the group, and the version."""
CONSUMPTION = "consumption"
GROUP_STATE = "group_state"
BUILD = "build"
PREFIX = "chimera_monitor_"


class MonitorMetrics(Collector):
    """Renders the newest model.

    Args:
        state: gives the model.
    """

    def __init__(self, state: Callable[[], PipelineState]) -> None:
        self._state = state
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)

    def page(self) -> bytes:
        """Return the metrics in OpenMetrics form."""
        page: bytes = generate_latest(self._registry)  # type: ignore[no-untyped-call] # the library declares no types here
        return page

    def describe(self) -> Iterable[Any]:
        """Let the registry not ask for metrics before there is a model."""
        return ()

    def collect(self) -> Iterator[Any]:
        """Yield the families of metrics of the model."""
        state = self._state()
        for metric in METRICS:
            kind = CounterMetricFamily if metric.counter else GaugeMetricFamily
            family = kind(f"{PREFIX}{metric.name}", metric.text, labels=metric.labels)
            for labels, value in metric.samples(state):
                if value is not None:
                    number = value.timestamp() if isinstance(value, datetime) else float(value)
                    family.add_metric(labels, number)
            yield family
        yield _consumption(state)
        yield _group_state(state)
        text = "Version of the monitor."
        yield InfoMetricFamily(f"{PREFIX}{BUILD}", text, {"version": version("chimera-pipeline")})


def _consumption(state: PipelineState) -> StateSetMetricFamily:
    text = "Consumption of a partition by its last commits: the state with 1."
    found = StateSetMetricFamily(f"{PREFIX}{CONSUMPTION}", text, labels=("family", "partition"))
    for family in _families(state):
        for part in family.partitions:
            states = {each.value: each is part.consumption for each in Consumption}
            found.add_metric((family.name, str(part.partition)), states)
    return found


def _group_state(state: PipelineState) -> StateSetMetricFamily:
    found = StateSetMetricFamily(f"{PREFIX}{GROUP_STATE}", "State of the consumer group, in Kafka's words.")
    if state.kafka.verdict is Health.OK:
        found.add_metric((), {state.group.state: True})
    return found
