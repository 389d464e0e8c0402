"""A batch of Kafka's log whose bytes have changed on the broker's disk."""

from pathlib import Path

import pytest
from confluent_kafka import Producer
from support.commands import Chimera
from support.events import events, publish
from support.processes import PATIENCE_SECONDS, Worker, last_word, prepare
from support.replays import UiEvents
from support.verifying import Verify

from pipeline.clickhouse.client import connect
from pipeline.config import Settings, env_name
from pipeline.devstack import Stack
from pipeline.errors import HaltError
from pipeline.kafka.client import client_config
from pipeline.producer.encode import Encoder

pytestmark = pytest.mark.integration

_BEFORE = 40
_UNPACKED = 1024 * 1024


def test_a_damaged_batch_halts_behind_the_records_before_it(
    settings: Settings, environ: dict[str, str], stack: Stack, tmp_path: Path
) -> None:
    """The line names partition and offsets; what comes before the batch is stored, also in a fetch that has both."""
    family = prepare(settings).family("llm_events")
    values = [Encoder(family).encode(event).value for event in events(family.name, _BEFORE + 1)]
    publish(settings, family.topic.name, values[:_BEFORE])
    publish(settings, family.topic.name, values[_BEFORE:])
    _damage(stack, family.topic.name)
    with Worker(environ, tmp_path / "log") as worker:
        said = last_word(worker, HaltError.exit_code)
    assert f"{family.topic.name}-0: Kafka's log is damaged: the checksum of the batch" in said
    assert f"offsets {_BEFORE} to {_BEFORE} is wrong" in said
    with connect(settings.clickhouse) as client:
        assert client.execute(f"SELECT count() FROM {family.table}") == [(_BEFORE,)]


def test_a_replay_fills_all_before_a_damaged_batch_and_names_it(
    log: UiEvents, replay: Chimera, verify: Verify, stack: Stack
) -> None:
    """Other partitions are filled to their ends; `chimera verify`, which reads what has no row, names the batch too."""
    topic = log.family.topic.name
    log.produce(2 * _BEFORE)
    log.produce(2)
    _damage(stack, topic)
    log.produce(2)
    ended = replay("--execute")
    assert ended.returncode == HaltError.exit_code
    damage = (
        f"{topic}-0: Kafka's log is damaged: the checksum of the batch with offsets {_BEFORE} to {_BEFORE} is wrong"
    )
    assert damage in ended.stderr.splitlines()[-1]
    assert f"{2 * _BEFORE + 2:,} rows inserted into ui_events" in ended.stdout
    assert "session_stats isn't brought in line with 2026-01-31, because: " in ended.stderr  # no snapshot yet
    assert log.stored() == (2 * _BEFORE + 2, 2 * _BEFORE + 2)
    verified = verify("ui_events")
    assert verified.code == HaltError.exit_code
    assert f"{topic}-0: Kafka's log is damaged: the batch at offset {_BEFORE} is" in verified.err.splitlines()[-1]


def test_a_batch_that_unpacks_to_too_much_halts_the_worker_until_the_setting_lets_it_pass(
    settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """What comes before it is stored, and nothing is passed over: with more room it is an oversize record."""
    family = prepare(settings).family("llm_events")
    values = [Encoder(family).encode(event).value for event in events(family.name, _BEFORE + 1)]
    publish(settings, family.topic.name, values[:_BEFORE])
    producer = Producer(
        {**client_config(settings.kafka), "compression.type": "zstd", "message.max.bytes": 4 * _UNPACKED}
    )
    producer.produce(family.topic.name, bytes(3 * _UNPACKED), partition=0)
    assert producer.flush(30) == 0
    publish(settings, family.topic.name, values[_BEFORE:])
    few = environ | {env_name("kafka", "max_unpacked_bytes"): str(_UNPACKED)}
    with Worker(few, tmp_path / "few.log") as worker:
        said = last_word(worker, HaltError.exit_code)
    assert f"offsets {_BEFORE} to {_BEFORE} can't be read: it can't be decompressed to at most {_UNPACKED} " in said
    assert "CHIMERA_KAFKA__MAX_UNPACKED_BYTES" in said
    with connect(settings.clickhouse) as client:
        assert client.execute(f"SELECT count() FROM {family.table}") == [(_BEFORE,)]
    with Worker(environ, tmp_path / "more.log") as worker:
        worker.wait_until_consuming()
        worker.wait_for(lambda: worker.metric("chimera_rows_inserted_total", family=family.name) == 1, "the last row")
        assert worker.metric("chimera_records_rejected_total", family=family.name) == 1


def _damage(stack: Stack, topic: str) -> None:
    """Change the last byte of the log of partition 0 on the broker's disk."""
    stack.kafka.stop(PATIENCE_SECONDS)  # a broker that is killed cuts a damaged log off when it starts
    (segment,) = (stack.kafka.directory / "data" / f"{topic}-0").glob("*.log")
    data = bytearray(segment.read_bytes().rstrip(b"\0"))  # the file may be preallocated
    data[-1] ^= 0xFF
    with segment.open("r+b") as file:
        file.write(data)
    stack.kafka.start()
