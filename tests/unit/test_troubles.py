"""Troubles of the worker's parts: lines for /ready, and one log line for each beginning and each end."""

from structlog.testing import capture_logs

from pipeline.troubles import Troubles


class _Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_line_has_part_cause_seconds_and_attempt() -> None:
    """It is the newest cause, and the time since the first one."""
    clock = _Clock()
    troubles = Troubles(clock=clock)
    troubles.report("ui_events", "ClickHouse 127.0.0.1:9000: Connection refused", step=1, attempts=1)
    clock.now += 34
    troubles.report("ui_events", "ClickHouse 127.0.0.1:9000 doesn't answer", step=1, attempts=6)
    assert troubles.lines == ["ui_events: ClickHouse 127.0.0.1:9000 doesn't answer, 34 s, attempt 7"]
    assert troubles.seconds == {"ui_events": 34}


def test_a_trouble_lasts_until_its_last_step_is_well() -> None:
    """Many micro-batches fail at once when a server goes away; that is one trouble in the log."""
    clock = _Clock()
    troubles = Troubles(clock=clock)
    with capture_logs() as lines:
        for step in range(5):
            troubles.report("ui_events", "down", step=step, attempts=1)
        for step in range(4):
            troubles.end("ui_events", step=step)
        assert troubles.lines
        troubles.end("ui_events", step="another")
        clock.now += 2
        troubles.end("ui_events", step=4)
    assert troubles.lines == []
    assert [line["event"] for line in lines] == ["trouble begins", "trouble is over"]
    assert (lines[-1]["seconds"], lines[-1]["attempts"]) == (2, 1)


def test_a_trouble_that_is_looked_for_begins_and_ends() -> None:
    """A cause may say for how long it has lasted already; the oldest trouble is the first line."""
    clock = _Clock()
    troubles = Troubles(clock=clock)
    troubles.note("partitions", "the group hasn't assigned them yet")
    troubles.note("Kafka", "no answer", seconds=7)
    assert troubles.lines == ["Kafka: no answer, 7 s", "partitions: the group hasn't assigned them yet, 0 s"]
    troubles.note("Kafka", None)
    troubles.note("Kafka", None)
    assert [line.partition(":")[0] for line in troubles.lines] == ["partitions"]
