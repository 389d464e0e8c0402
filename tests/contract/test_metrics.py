"""Metrics: docs/metrics.md has names, types, labels and texts of the code, and the worker's page is OpenMetrics."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from pipeline import metrics
from pipeline.transport.broker import TopicPartition
from pipeline.transport.micro_batch import State
from pipeline.troubles import Troubles
from pipeline.worker.family_metrics import FamilyMetrics
from pipeline.worker.state_metrics import StateMetrics

_PAGE = Path(__file__).parents[2] / "docs/metrics.md"
_UNITS = ("_seconds", "_bytes", "_ratio")


def _state() -> StateMetrics:
    return StateMetrics(lambda: None, {}, Troubles())


def _collected() -> list[Any]:
    collectors = [each for each in vars(metrics).values() if isinstance(each, metrics.ManyDurations)]
    return [*_state().describe(), *(metric for each in collectors for metric in each.describe())]


def _rows() -> list[str]:
    """Rows of the page's table, from the code."""
    ours = [each for each in vars(metrics).values() if isinstance(each, MetricWrapperBase)]
    declared = [(each._type, each._name, each._labelnames, each._documentation) for each in ours]
    declared += [(each.type, each.name, each._labelnames, each.documentation) for each in _collected()]
    ends = {"counter": "_total", "info": "_info"}
    return sorted(
        f"| `{name}{ends.get(str(kind), '')}` | {kind} | {', '.join(f'`{label}`' for label in labels)} | {text} |"
        for kind, name, labels, text in declared
    )


def test_the_page_has_the_metrics_of_the_code() -> None:
    """Each metric is a row; to change one, change the code and the row."""
    rows = re.findall(r"^\| `chimera_.*$", _PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == _rows()


def test_the_page_is_open_metrics() -> None:
    """A parser of the format takes it, there is no `_created`, and the content type has version and charset."""
    text = metrics.exposition().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}  # type: ignore[no-untyped-call]
    assert {"chimera_build", "process_cpu_seconds", "python_gc_objects_collected"} <= families.keys()
    assert "_created" not in text
    assert text.endswith("# EOF\n")
    assert metrics.CONTENT_TYPE.partition(";")[0] == "application/openmetrics-text"
    assert "version=1.0.0; charset=utf-8" in metrics.CONTENT_TYPE


def test_names_and_texts_follow_one_scheme() -> None:
    """Names begin with `chimera_`, a duration or a size has its unit in the name, and texts are sentences."""
    for row in _rows():
        name, kind, _, text = (cell.strip() for cell in row.strip("|").split("|"))
        assert name.startswith("`chimera_")
        assert text.endswith("."), name
        if text.startswith(("Duration", "Time for", "Time from", "Age", "Bytes", "Share")):
            assert name.strip("`").removesuffix("_total").endswith(_UNITS), name
        assert kind in {"counter", "gauge", "histogram", "info"}


def test_the_state_is_collected_when_it_is_asked_for() -> None:
    """A partition that has moved leaves no series behind."""
    registry, troubles, counted, tp = (
        CollectorRegistry(),
        Troubles(),
        FamilyMetrics("ui_events"),
        TopicPartition("t", 1),
    )
    counted.newest_event_ms = 90_000
    troubles.report("Kafka", "down", seconds=7)
    partitions = {tp: SimpleNamespace(on_broker=SimpleNamespace(state=State(3, ())))}
    assignment = SimpleNamespace(partitions=partitions, held_bytes=5)
    consumer: Any = SimpleNamespace(end_offsets=lambda: {tp: 8}, member=SimpleNamespace(assignment=assignment))
    registry.register(StateMetrics(lambda: consumer, {"ui_events": counted}, troubles, now=lambda: 100.0))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    assert (value("chimera_committed_offset", topic="t", partition="1"), value("chimera_ready")) == (3, 0)
    assert value("chimera_end_offset", topic="t", partition="1") == 8
    assert value("chimera_assigned_partitions", topic="t") == 1
    assert value("chimera_newest_event_age_seconds", family="ui_events") == 10
    assert value("chimera_trouble_seconds", part="Kafka") == pytest.approx(7, abs=5)
    partitions.clear()
    assert value("chimera_committed_offset", topic="t", partition="1") is None
    assert generate_latest(registry)  # type: ignore[no-untyped-call]


def test_durations_that_come_by_the_thousand_are_a_histogram() -> None:
    """Buckets are cumulative and hold their bound; sum and count are those of all."""
    durations = metrics.ManyDurations("chimera_made_seconds", "Made by a test.", (1, 60))
    try:
        durations.add([2, 1, 0], 11.5)
        durations.add([0, 0, 1], 100)
        (family,) = durations.collect()
    finally:
        REGISTRY.unregister(durations)
    samples = {(each.name.rpartition("_")[2], each.labels.get("le")): each.value for each in family.samples}
    assert samples == {
        ("bucket", "1.0"): 2,
        ("bucket", "60.0"): 3,
        ("bucket", "+Inf"): 4,
        ("count", None): 4,
        ("sum", None): 111.5,
    }
