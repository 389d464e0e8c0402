"""A flood of rejected records turns a real worker's readiness red, and holds nothing up."""

import re
from pathlib import Path

import pytest
from events import as_stored, bag, events, publish, rows, settled
from processes import Worker, prepare

from pipeline.config import Settings, env_name
from pipeline.encode import Encoder

pytestmark = pytest.mark.integration

_GOOD, _BAD = 30, 70


def test_too_many_rejections_turn_readiness_red_until_the_window_is_clean(
    settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """With the reason at /ready, in the metrics and, once for each turn, in the log; what is valid is stored."""
    family = prepare(settings).family("ui_events")
    good = events(family.name, _GOOD)
    valid = [Encoder(family).encode(event).value for event in good]
    environ = {**environ, env_name("worker", "reject_window_seconds"): "8"}
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        publish(settings, family.topic.name, [b"rejected"] * _BAD + valid)
        worker.wait_for(lambda: worker.metric("chimera_reject_brake", family=family.name) == 1, "the brake on")
        assert re.fullmatch(
            rf"not ready: ui_events: {_BAD} of \d+ records rejected in 8 s, more than 50% of them\n",
            worker.why_not_ready,
        )
        settled(worker, settings, family, _GOOD + _BAD)
        worker.wait_for(lambda: worker.metric("chimera_reject_brake", family=family.name) == 0, "the brake off")
        assert worker.ready
        assert worker.metric("chimera_reject_brake") == 0
        assert len(worker.lines("too many records are rejected")) == 1
        assert len(worker.lines("no longer are too many records rejected")) == 1
    assert bag(rows(settings, family.table)) == bag(as_stored(family, event) for event in good)
