"""The pace at which the monitor looks, with servers that a fake stands for."""

import pytest

from pipeline.catalog import load_catalog
from pipeline.config import Settings
from pipeline.kafka.standing import LogPlace, Standing
from pipeline.operations.monitor.watch import Watch

_INTERVAL_SECONDS, _LOOK_SECONDS = 5.0, 2.0
_PLACE = LogPlace("chimera.ui_events", 0)


class _Kafka:
    """A group and its topics, which take a while to look at."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.asked = list[bool]()

    def look(self, *, anew: bool) -> Standing:
        """Note if the partitions are asked for."""
        self.asked.append(anew)
        self.now += _LOOK_SECONDS
        offsets = {_PLACE: 0}
        return Standing("empty", (), offsets, offsets, offsets, frozenset(), frozenset())

    @staticmethod
    def read(_: object) -> dict[LogPlace, int]:
        """Know no record's time."""
        return {}


def test_partitions_are_asked_for_at_every_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every ten seconds, also if a look takes two of them."""
    settings, kafka = Settings(), _Kafka()
    watch = Watch(settings, load_catalog(settings), clock=lambda: kafka.now)
    monkeypatch.setattr(watch, "_group", kafka)
    monkeypatch.setattr(watch, "_times", kafka)
    for number in range(6):
        kafka.now = 1_000.0 + number * _INTERVAL_SECONDS
        watch.look_at_kafka()
    assert kafka.asked == [True, False] * 3
