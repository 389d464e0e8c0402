"""The dashboards in dashboards/: their panels, and the queries in them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DASHBOARDS: dict[str, dict[str, Any]] = {
    file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted((ROOT / "dashboards").glob("*.json"))
}
_RATE_INTERVAL = "1m"  # Grafana replaces the variable with at least four scrape intervals


def panels(name: str) -> Iterator[dict[str, Any]]:
    """Yield the panels with queries; the others are headings."""
    yield from (panel for panel in DASHBOARDS[name]["panels"] if panel["type"] != "row")


def expressions() -> Iterator[tuple[str, str]]:
    """Yield each PromQL expression, with the title of its panel and Grafana's variable replaced."""
    for panel in panels("overview"):
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$__rate_interval", _RATE_INTERVAL)


def statements() -> Iterator[tuple[str, str]]:
    """Yield each SQL statement, with the title of its panel."""
    for panel in panels("tables"):
        for target in panel["targets"]:
            yield panel["title"], target["rawSql"]
