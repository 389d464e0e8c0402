"""Grafana's dashboards: their form, the metrics and queries in them, and the data sources that they name."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from support.dashboards import DASHBOARDS, ROOT, expressions, panels, statements

from pipeline.queries import load_queries

_SOURCES = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/chimera.yml").read_text(encoding="utf-8"))
_TEXT = {"type": "string", "minLength": 1}
_GRID = {
    "type": "object",
    "required": ["x", "y", "w", "h"],
    "properties": {
        "x": {"type": "integer", "minimum": 0, "maximum": 23},
        "y": {"type": "integer", "minimum": 0},
        "w": {"type": "integer", "minimum": 1, "maximum": 24},
        "h": {"type": "integer", "minimum": 1},
    },
}
_FORM = {
    "type": "object",
    "required": ["uid", "title", "schemaVersion", "version", "time", "refresh", "timezone", "panels", "templating"],
    "properties": {
        "id": False,  # Grafana gives it; an imported one would replace another dashboard
        "uid": {"type": "string", "pattern": "^[a-z0-9-]{1,40}$"},
        "title": _TEXT,
        "schemaVersion": {"type": "integer", "minimum": 36},
        "panels": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["id", "type", "title", "gridPos"],
                "properties": {
                    "type": {"enum": ["row", "stat", "timeseries", "table"]},
                    "title": _TEXT,
                    "gridPos": _GRID,
                    "targets": {"type": "array", "minItems": 1, "items": {"required": ["refId", "datasource"]}},
                },
                "if": {"properties": {"type": {"const": "row"}}},
                "else": {"required": ["targets", "datasource", "fieldConfig", "options"]},
            },
        },
    },
}
"""The part of Grafana's form (its classic JSON model) that the dashboards use."""


def test_there_are_two() -> None:
    """One of the pipeline, one of the tables, each with an address of its own."""
    assert {name: board["uid"] for name, board in DASHBOARDS.items()} == {
        "overview": "chimera-pipeline",
        "tables": "chimera-tables",
    }


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_has_grafanas_form(name: str) -> None:
    """It has the keys of Grafana's model, and no panel covers another one."""
    problems = [
        f"{error.json_path}: {error.message}" for error in Draft202012Validator(_FORM).iter_errors(DASHBOARDS[name])
    ]
    assert problems == []
    boxes = [panel["gridPos"] for panel in DASHBOARDS[name]["panels"]]
    cells = [(x, y) for box in boxes for x in _span(box, "x", "w") for y in _span(box, "y", "h")]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    ids = [panel["id"] for panel in DASHBOARDS[name]["panels"]]
    assert len(ids) == len(set(ids))


def _span(box: dict[str, int], start: str, length: str) -> range:
    return range(box[start], box[start] + box[length])


@pytest.mark.parametrize("name", DASHBOARDS)
def test_each_panel_asks_a_provisioned_source(name: str) -> None:
    """The data sources of the panels are those that Grafana gets beside them, by uid and type."""
    provisioned = {source["uid"]: source["type"] for source in _SOURCES["datasources"]}
    for panel in panels(name):
        for asked in (panel["datasource"], *(target["datasource"] for target in panel["targets"])):
            assert provisioned[asked["uid"]] == asked["type"], panel["title"]


def test_each_metric_of_an_expression_is_documented() -> None:
    """Names are those of docs/metrics.md and docs/monitor.md; a histogram has its parts."""
    pages = [(ROOT / "docs" / page).read_text(encoding="utf-8") for page in ("metrics.md", "monitor.md")]
    known = {name for page in pages for name in re.findall(r"^\| `(chimera_\w+)", page, re.MULTILINE)}
    assert known
    for title, expression in expressions():
        for name in re.findall(r"\bchimera_\w+", expression):
            assert {name, re.sub("_(bucket|sum|count)$", "", name)} & known, f"{title}: {name}"


def test_each_expression_parses(tmp_path: Path) -> None:
    """`promtool` reads each one as the expression of a rule."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool on this machine: install Debian's package prometheus")
    rules = [{"record": f"panel_{number}", "expr": text} for number, (_, text) in enumerate(expressions())]
    assert rules
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}), encoding="utf-8")
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_tables_show_the_specifications_queries() -> None:
    """Each query that ClickHouse answers is in a panel, word for word, under its title."""
    expected: list[Any] = [(query.title, query.sql) for query in load_queries().values() if not query.refused]
    assert list(statements()) == expected
