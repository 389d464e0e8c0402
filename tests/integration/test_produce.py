"""Publishing to a real broker: partitions of keys, stored records, and a broker that refuses or is away."""

import random
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka import Message as KafkaMessage
from support.containers import ContainerStack
from support.kafka_requests import watermarks
from support.schema_registry import RegistryServer

from pipeline.catalog import Catalog, Family, load_catalog
from pipeline.config import RegistrySettings, Settings
from pipeline.decode.decoder import Decoder
from pipeline.devstack import Stack
from pipeline.errors import UnavailableError
from pipeline.kafka.client import client_config
from pipeline.kafka.registry import SchemaRegistry
from pipeline.kafka.topics import TopicAdmin, plan
from pipeline.producer.encode import InvalidEventError
from pipeline.producer.producer import DeliveryError, Producer
from pipeline.producer.sample import sample
from pipeline.schema.framing import CONFLUENT_MAGIC

pytestmark = pytest.mark.integration

EXAMPLES = Path(__file__).parents[2] / "examples"
SECONDS = 20


def murmur2(data: bytes) -> int:
    """Return Kafka's hash of a key (`org.apache.kafka.common.utils.Utils.murmur2`), a signed 32-bit number."""
    multiplier, mask = 0x5BD1E995, 0xFFFFFFFF
    value = 0x9747B28C ^ len(data)
    tail = len(data) % 4
    for at in range(0, len(data) - tail, 4):
        word = int.from_bytes(data[at : at + 4], "little") * multiplier & mask
        word = (word ^ word >> 24) * multiplier & mask
        value = value * multiplier & mask ^ word
    if tail:
        value = (value ^ int.from_bytes(data[-tail:], "little")) * multiplier & mask
    value = (value ^ value >> 13) * multiplier & mask
    value ^= value >> 15
    return value - (1 << 32) if value >> 31 else value


@pytest.fixture
def catalog(settings: Settings) -> Catalog:
    """Catalog of the test's own topics, which exist as declared."""
    declared = load_catalog(settings)
    admin = TopicAdmin(settings.kafka)
    admin.apply(plan(declared.topics, admin.read(topic.name for topic in declared.topics), settings.topics.file))
    return declared


def stored(settings: Settings, topic: str) -> Iterator[KafkaMessage]:
    """Read all records of the topic."""
    consumer = Consumer({**client_config(settings.kafka), "group.id": "nobody", "enable.partition.eof": False})
    try:
        partitions = [
            TopicPartition(topic, number, 0) for number in consumer.list_topics(topic).topics[topic].partitions
        ]
        left = sum(watermarks(consumer, partition)[1] for partition in partitions)
        consumer.assign(partitions)
        while left:
            messages = consumer.consume(min(left, 10_000), SECONDS)
            assert messages, f"{left} records of {topic} don't come"
            yield from messages
            left -= len(messages)
    finally:
        consumer.close()


def column(family: Family, messages: list[KafkaMessage], name: str) -> list[int]:
    """Return a column of numbers of the rows that the worker makes of these records."""
    numbers = Decoder(family).decode([message.value() for message in messages]).columns[name]
    assert isinstance(numbers, np.ndarray)
    return [int(number) for number in numbers]


def ui_events(count: int) -> list[dict[str, Any]]:
    start = datetime(2026, 1, 31, tzinfo=UTC)
    return [event for _, event in sample(count, seed=3, start=start, hours=1, families=["ui_events"])]


def chimera(environ: dict[str, str], *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "pipeline.cli", "produce", *arguments]
    return subprocess.run(command, env=environ, input=stdin, capture_output=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(key: bytes, expected: int) -> None:
    """The hash agrees with Kafka's own UtilsTest; the next test relies on it."""
    assert murmur2(key) == expected


def test_keys_land_where_java_clients_put_them(settings: Settings, catalog: Catalog) -> None:
    """Each record is in the partition that Java's default partitioner gives its key, in the order of sending."""
    family, events = catalog.family("ui_events"), ui_events(2_000)
    with Producer(settings, catalog) as producer:
        for event in events:
            producer.send("ui_events", event)
    sessions: dict[str, list[int]] = {}
    partitions = set()
    for message in stored(settings, family.topic.name):
        key, partition = message.key(), message.partition()
        assert isinstance(key, bytes)
        assert partition == (murmur2(key) & 0x7FFFFFFF) % family.topic.partitions
        partitions.add(partition)
        sessions.setdefault(key.decode(), []).append(column(family, [message], "ts")[0])
    sent: dict[str, list[int]] = {}
    for event in events:
        sent.setdefault(event["session_id"], []).append(event["ts"])
    assert sessions == sent
    assert len(partitions) == family.topic.partitions


def test_records_carry_the_time_of_publishing(settings: Settings, catalog: Catalog) -> None:
    """Retention uses this time, so an old event is kept as long as any other."""
    began = datetime.now(UTC)
    with Producer(settings, catalog) as producer:
        producer.send("ui_events", {**ui_events(1)[0], "ts": "1971-01-01T00:00:00Z"})
    (message,) = stored(settings, catalog.family("ui_events").topic.name)
    published = datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC)
    assert began - timedelta(seconds=1) < published < datetime.now(UTC) + timedelta(seconds=1)


def test_a_broker_killed_midway_loses_and_repeats_nothing(
    settings: Settings, catalog: Catalog, stack: Stack | ContainerStack
) -> None:
    """The idempotent producer continues when the broker is back."""
    events = ui_events(4_000)
    with Producer(settings, catalog, timeout_seconds=120) as producer:
        for number, event in enumerate(events):
            producer.send("ui_events", {**event, "latency_ms": number})
            if number == len(events) // 2:
                stack.kafka.kill()
                stack.kafka.start()
    family = catalog.family("ui_events")
    numbers = column(family, list(stored(settings, family.topic.name)), "latency_ms")
    assert sorted(numbers) == list(range(len(events)))


def test_an_event_that_the_broker_refuses_is_raised(settings: Settings) -> None:
    """Leaving the producer raises the failure of the last event, with topic and error."""
    declared = load_catalog(settings)
    topic = declared.family("ui_events").topic.model_copy(update={"max_message_bytes": 1024})
    admin = TopicAdmin(settings.kafka)
    admin.apply(plan([topic], admin.read([topic.name]), settings.topics.file))
    producer = Producer(settings, declared)
    producer.send("ui_events", {**ui_events(1)[0], "metadata": f'{{"{random.Random(1).randbytes(5_000).hex()}": 1}}'})
    with pytest.raises(DeliveryError, match=f"^{topic.name}: delivery refused: MSG_SIZE_TOO_LARGE ") as refused:
        producer.flush()
    assert refused.value.exit_code == 1


def test_a_missing_topic_is_explained(settings: Settings) -> None:
    """The producer reports a missing topic at once, instead of waiting for it."""
    with pytest.raises(DeliveryError, match=r"no topic .*\.ui_events; create it with `chimera topics apply`$"):
        Producer(settings).send("ui_events", ui_events(1)[0])


def test_a_silent_broker_is_unavailable(settings: Settings, catalog: Catalog, stack: Stack | ContainerStack) -> None:
    """Events without an acknowledgement in time are reported, with the broker's address."""
    producer = Producer(settings, catalog, timeout_seconds=5.0)
    producer.send("ui_events", ui_events(1)[0])
    producer.flush()
    stack.kafka.pause()
    producer.send("ui_events", ui_events(1)[0])
    with pytest.raises(UnavailableError, match=f"^Kafka at {settings.kafka.bootstrap_servers} is not available: "):
        producer.flush()


def test_an_invalid_event_is_not_sent(settings: Settings, catalog: Catalog) -> None:
    """Events before the invalid one are delivered all the same."""
    good = ui_events(1)[0]
    with Producer(settings, catalog) as producer:
        producer.send("ui_events", good)
        with pytest.raises(InvalidEventError, match="latency_ms"):
            producer.send("ui_events", {**good, "latency_ms": -1})
    assert len(list(stored(settings, catalog.family("ui_events").topic.name))) == 1


def test_events_are_framed_for_the_registry_when_there_is_one(
    settings: Settings, catalog: Catalog, schema_registry: RegistryServer
) -> None:
    """The schema is registered under the topic's subject, and its id is enough to decode the record."""
    registry_settings = RegistrySettings(url=schema_registry.url)
    with Producer(settings.model_copy(update={"registry": registry_settings}), catalog) as producer:
        producer.send("ui_events", ui_events(1)[0])
    family = catalog.family("ui_events")
    (message,) = stored(settings, family.topic.name)
    assert (message.value() or b"")[:1] == CONFLUENT_MAGIC
    assert len(Decoder(family, SchemaRegistry(registry_settings)).decode([message.value()])) == 1


@pytest.mark.parametrize("name", [file.stem for file in sorted(EXAMPLES.iterdir())])
def test_a_file_is_published(name: str, environ: dict[str, str], settings: Settings, catalog: Catalog) -> None:
    """Every line arrives as a valid record of the family's topic."""
    file = EXAMPLES / f"{name}.jsonl"
    result = chimera(environ, name, "--file", str(file))
    assert (result.returncode, result.stderr) == (0, b"")
    lines = file.read_bytes().splitlines()
    assert result.stdout.startswith(f"published {len(lines)} events in ".encode())
    family = catalog.family(name)
    values = [message.value() for message in stored(settings, family.topic.name)]
    assert len(Decoder(family).decode(values)) == len(lines)
    keys = {str(orjson.loads(line)[family.key]).encode() for line in lines}
    assert {message.key() for message in stored(settings, family.topic.name)} == keys


def test_a_file_with_a_bad_line_is_not_published(environ: dict[str, str], settings: Settings, catalog: Catalog) -> None:
    """A file with a bad line is published only with --skip-bad; the exit code is 1 either way."""
    topic = catalog.family("ui_events").topic.name
    stdin = (EXAMPLES / "ui_events.jsonl").read_bytes() + b"{}\n"
    whole = chimera(environ, "ui_events", "--file", "-", stdin=stdin)
    assert whole.returncode == 1
    assert b"line 6: ui_events: ts: required, but missing; session_id: required, but missing; " in whole.stderr
    assert b"chimera: 1 of 6 lines are bad: nothing was published\n" in whole.stderr
    assert list(stored(settings, topic)) == []
    rest = chimera(environ, "ui_events", "--file", "-", "--skip-bad", stdin=stdin)
    assert rest.returncode == 1
    assert rest.stdout.startswith(b"published 5 events in ")
    assert len(list(stored(settings, topic))) == 5


def test_a_sample_is_published_over_all_families(environ: dict[str, str], settings: Settings, catalog: Catalog) -> None:
    """The printed counts agree with the topics, and every record is valid."""
    result = chimera(environ, "--sample", "3000")
    assert (result.returncode, result.stderr) == (0, b"")
    counts = {family.name: _valid(settings, family) for family in catalog.families}
    assert sum(counts.values()) == 3_000
    for name, count in counts.items():
        assert f"{name} {count:,}".encode() in result.stdout


def _valid(settings: Settings, family: Family) -> int:
    rows = Decoder(family).decode([message.value() for message in stored(settings, family.topic.name)])
    assert not rows.rejections
    return len(rows)
