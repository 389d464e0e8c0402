"""A broker that refuses the worker's commits for good: the worker says why, and ends."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.events import events, publish
from support.processes import Worker, last_word, prepare

from pipeline.clickhouse.client import connect
from pipeline.config import Settings, env_name
from pipeline.devstack import KafkaBroker
from pipeline.errors import HaltError
from pipeline.producer.encode import Encoder

pytestmark = pytest.mark.integration


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[KafkaBroker]:
    """A broker that takes ten bytes of metadata beside an offset."""
    with KafkaBroker(tmp_path / "kafka", properties={"offset.metadata.max.bytes": "10"}) as broker:
        yield broker


@pytest.fixture
def environ(environ: dict[str, str], broker: KafkaBroker) -> dict[str, str]:
    """Environment for processes that use this broker."""
    return {**environ, env_name("kafka", "bootstrap_servers"): broker.bootstrap_servers}


def test_metadata_that_the_broker_refuses_halts_the_worker(
    settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """One line names the broker's setting; nothing is stored."""
    family = prepare(settings).family("ui_events")
    values = [Encoder(family).encode(event).value for event in events(family.name, 20)]
    publish(settings, family.topic.name, values)
    with Worker(environ, tmp_path / "log") as worker:
        line = last_word(worker, HaltError.exit_code)
    assert f"group {settings.kafka.group_id}, " in line
    assert f"{family.topic.name}-0" in line
    assert "Kafka refuses for good: OFFSET_METADATA_TOO_LARGE" in line
    assert "set offset.metadata.max.bytes of the brokers to 4096 or more" in line
    with connect(settings.clickhouse) as client:
        assert client.execute("SELECT count() FROM ui_events") == [(0,)]
