"""The faces of the model: metrics in OpenMetrics form, JSON that keeps to its schema, a screen of text."""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from pydantic import TypeAdapter
from rich.console import Console
from support.pipeline_states import STATES, busy, clickhouse_away, kafka_away

from pipeline.cli.status_output import screen
from pipeline.operations.monitor.metrics import BUILD, CONSUMPTION, GROUP_STATE, METRICS, PREFIX, MonitorMetrics
from pipeline.operations.monitor.runbook import runbook_page
from pipeline.operations.monitor.state import PipelineState

ROOT = Path(__file__).parents[2]
_MODEL: TypeAdapter[PipelineState] = TypeAdapter(PipelineState)


def _families(state: PipelineState) -> dict[str, Any]:
    parse: Any = text_string_to_metric_families  # the library declares no types here
    return {family.name: family for family in parse(MonitorMetrics(lambda: state).page().decode())}


def test_the_published_schema_is_that_of_the_model() -> None:
    """docs/status.schema.json is made of the classes; `python -m pipeline.operations.monitor.schema` writes it."""
    from pipeline.operations.monitor.schema import document

    assert json.loads((ROOT / "docs/status.schema.json").read_text(encoding="utf-8")) == document()


@pytest.mark.parametrize("make", STATES.values(), ids=STATES)
def test_the_json_keeps_to_the_schema(make: Callable[[], PipelineState]) -> None:
    """What /status.json gives is read back as the same model, without a field more."""
    state = make()
    assert _MODEL.validate_json(orjson.dumps(state)) == state


@pytest.mark.parametrize("make", STATES.values(), ids=STATES)
def test_metrics_are_of_openmetrics_form(make: Callable[[], PipelineState]) -> None:
    """A strict parser reads them, and no `_created` is among them."""
    page = MonitorMetrics(make).page().decode()
    assert page.endswith("# EOF\n")
    assert "_created" not in page
    assert _families(make())


def test_every_metric_is_documented() -> None:
    """The table in docs/monitor.md has each metric, and no other."""
    text = (ROOT / "docs/monitor.md").read_text(encoding="utf-8")
    listed = {line.split("`")[1].partition("{")[0] for line in text.splitlines() if line.startswith(f"| `{PREFIX}")}
    wanted = {f"{PREFIX}{metric.name}{'_total' if metric.counter else ''}" for metric in METRICS}
    assert listed == wanted | {f"{PREFIX}{name}" for name in (CONSUMPTION, GROUP_STATE, f"{BUILD}_info")}


def test_an_unknown_lag_is_no_sample() -> None:
    """While Kafka is away there is no lag: a zero, or an old number, would be taken for the truth."""
    assert _families(busy())[f"{PREFIX}lag_records"].samples
    away = _families(kafka_away())
    assert not away[f"{PREFIX}lag_records"].samples
    assert {sample.labels["server"]: sample.value for sample in away[f"{PREFIX}up"].samples} == {
        "kafka": 0.0,
        "clickhouse": 1.0,
    }


@pytest.mark.parametrize(
    ("columns", "titles"),
    [
        pytest.param(80, "family in/s out/s waiting oldest letters rows stored", id="80"),
        pytest.param(50, "family waiting oldest stored", id="50"),
        pytest.param(30, "family waiting", id="30"),
    ],
)
@pytest.mark.parametrize("make", STATES.values(), ids=STATES)
def test_the_screen_fits_into_the_terminal(make: Callable[[], PipelineState], columns: int, titles: str) -> None:
    """Each family has one line, in which nothing is cut; a narrow terminal has fewer columns of the table."""
    lines = _screen(make(), columns).splitlines()
    assert not [line for line in lines if "…" in line or len(line) > columns]
    for family in busy().families:
        assert sum(f" {family.name} " in line for line in lines) == 1
    (head,) = [line for line in lines if "family" in line]
    assert set(titles.split()) <= set(head.split())


def test_the_screen_tells_which_worker_is_not_ready() -> None:
    """How many there are, and the reason that the first one's /ready gives."""
    said = _screen(clickhouse_away(), 200)
    assert "3 workers, 3 not ready" in said
    assert "worker 10.4.0.17#8e1c: ui_events: ClickHouse" in said


def _screen(state: PipelineState, columns: int) -> str:
    console = Console(width=columns, record=True, file=io.StringIO())
    console.print(screen(state, columns))
    return console.export_text()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({}, "last backup: 41 min ago", id="one"),
        pytest.param({"age_seconds": None, "at": None}, "last backup: none yet", id="none"),
        pytest.param({"last_failed": True}, "41 min ago; the last attempt has failed", id="failed"),
        pytest.param({"reason": "not enough privileges"}, "last backup: not known", id="refused"),
        pytest.param({"looked_at": None}, "last backup: not asked yet", id="first"),
    ],
)
def test_the_screen_tells_the_last_backup(change: dict[str, Any], said: str) -> None:
    """Its age, that there is none, that the last attempt failed, or that nobody knows."""
    state = busy()
    assert said in _screen(replace(state, backup=replace(state.backup, **change)), 80)


def test_no_backup_has_no_sample() -> None:
    """A zero would be taken for a fresh backup."""
    state = busy()
    assert [sample.value for sample in _families(state)[f"{PREFIX}backup_age_seconds"].samples] == [2460.0]
    none = replace(state, backup=replace(state.backup, age_seconds=None))
    assert not _families(none)[f"{PREFIX}backup_age_seconds"].samples


def test_every_trouble_has_a_section_in_the_runbook() -> None:
    """The page links to it by the trouble's id; each section is found in the page that the monitor serves."""
    import re

    source = (ROOT / "pipeline/operations/monitor/troubles.py").read_text(encoding="utf-8")
    ids = set(re.findall(r'Found\("([a-z-]+)"', source))
    assert len(ids) > 10
    served = set(re.findall(r'<h2 id="([a-z-]+)"', runbook_page().decode()))
    assert ids <= served


def test_a_summary_names_the_worst() -> None:
    """One line says what is wrong, and how much more there is."""
    state = kafka_away()
    assert state.summary.startswith("Kafka at kafka-1.example:9093")
    assert replace(state, troubles=()).troubles == ()
