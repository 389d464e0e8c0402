"""Topics of one's own, in a file beside the project's."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.catalog import load_topics
from pipeline.errors import ConfigError

ROOT = Path(__file__).parents[2]


def _own(directory: Path, topics: dict[str, Any], **more: Any) -> Path:
    file = directory / "own.yaml"
    file.write_text(yaml.safe_dump({"version": 1, "topics": topics, **more}), encoding="utf-8")
    return file


def test_topics_of_ones_own_take_the_defaults_of_the_project(tmp_path: Path) -> None:
    """They stand beside the others, with a dead-letter topic each."""
    own = _own(tmp_path, {"chimera.orders": {"family": "orders", "key": "order_id", "partitions": 2}})
    topics = {topic.name: topic for topic in load_topics(ROOT / "topics.yaml", own=own)}
    project = topics["chimera.ui_events"]
    assert (topics["chimera.orders"].partitions, topics["chimera.orders"].batch) == (2, project.batch)
    assert "chimera.orders.dlq" in topics


@pytest.mark.parametrize(
    ("topics", "more", "expected"),
    [
        pytest.param({"chimera.ui_events": {}}, {}, "topics.yaml has this topic", id="a topic of the project"),
        pytest.param(
            {"mine": {"family": "ui_events", "key": "session_id"}}, {}, "one topic a family", id="a family of it"
        ),
        pytest.param({"mine": {}}, {"defaults": {}}, "defaults: unknown key", id="defaults of its own"),
    ],
)
def test_topics_of_ones_own_change_none_of_the_project(
    tmp_path: Path, topics: dict[str, Any], more: dict[str, Any], expected: str
) -> None:
    """The message names the own file."""
    with pytest.raises(ConfigError, match=rf"own\.yaml: .*{expected}"):
        load_topics(ROOT / "topics.yaml", own=_own(tmp_path, topics, **more))
