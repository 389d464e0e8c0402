"""Dead letters: a rejected record is in its dead-letter topic, unchanged, before its offset is committed."""

import hashlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType
from support.events import events, publish, settled
from support.kafka_requests import answer_to, watermarks
from support.processes import Worker, eventually, lag, prepare

from pipeline.catalog import Family
from pipeline.config import Settings, env_name
from pipeline.kafka.client import client_config
from pipeline.producer.encode import Encoder

pytestmark = pytest.mark.integration

_SECONDS = 120.0
_EVENTS = 20
_PREFIX = "chimera.error."


def dead_letters(settings: Settings, family: Family, count: int) -> list[Message]:
    """Return all dead letters of the family; check their number."""
    return messages(settings, TopicPartition(family.dead_letters.name, 0, 0), count)


def messages(settings: Settings, partition: TopicPartition, count: int) -> list[Message]:
    """Return all messages of a partition; check their number."""
    consumer = Consumer({**client_config(settings.kafka), "group.id": "-"})
    try:
        assert watermarks(consumer, partition) == (0, count)
        consumer.assign([partition])
        return consumer.consume(count, _SECONDS) if count else []
    finally:
        consumer.close()


def set_limit(settings: Settings, topic: str, max_message_bytes: int) -> None:
    entry = ConfigEntry("max.message.bytes", str(max_message_bytes), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({**client_config(settings.kafka)})
    answer_to(lambda: admin.incremental_alter_configs([resource])[resource], _SECONDS)


def test_dead_letters_are_the_records_as_they_were(settings: Settings, environ: dict[str, str], tmp_path: Path) -> None:
    """Key, value and headers are equal byte for byte, also if they are null, doubled or no text.

    The record's timestamp is in a header. The dead letter's own is the time of rejection, for the sake of retention.
    """
    family = prepare(settings).family("ui_events")
    records: list[dict[str, Any]] = [
        {"value": None, "key": None, "headers": []},
        {"value": b"", "key": b"", "headers": [("a", b"1"), ("a", None), ("a", b"\xff\xfe")]},
        {"value": b"\xff\x00garbage", "key": b"\xff", "headers": [(f"{_PREFIX}attempts", b"4")]},
    ]
    producer = Producer(client_config(settings.kafka))
    for record in records:
        producer.produce(family.topic.name, partition=1, **record)
    assert producer.flush(_SECONDS) == 0
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        settled(worker, settings, family, len(records))
    sources = messages(settings, TopicPartition(family.topic.name, 1, 0), len(records))
    for at, (record, letter) in enumerate(zip(records, dead_letters(settings, family, len(records)), strict=True)):
        assert (letter.value(), letter.key()) == (record["value"], record["key"])
        kind, time = letter.timestamp()
        assert (kind, time > sources[at].timestamp()[1]) == (TIMESTAMP_LOG_APPEND_TIME, True)
        headers: Any = letter.headers()
        before = len(record["headers"])
        assert list(headers[:before]) == record["headers"]
        said = {name.removeprefix(_PREFIX): value.decode() for name, value in headers[before:]}
        assert (said["topic"], said["partition"], said["offset"]) == (family.topic.name, "1", str(at))
        assert said["timestamp"] == str(sources[at].timestamp()[1])
        assert said["attempts"] == ("5" if at == 2 else "1")
    assert [dict(letter.headers() or [])[f"{_PREFIX}reason"] for letter in dead_letters(settings, family, 3)] == [
        b"tombstone",
        b"empty",
        b"unframed",
    ]


def test_a_record_as_large_as_its_topic_takes_fits(settings: Settings, environ: dict[str, str], tmp_path: Path) -> None:
    """A record fits with its headers, also if the broker accepted it only because it compresses well."""
    family = prepare(settings).family("ui_events")
    limit = family.topic.max_message_bytes
    noise = random.Random(1).randbytes(limit // 2)
    values = [noise[: limit // 2 - 1_000], b"x" * 8 * limit]
    producer = Producer({**client_config(settings.kafka), "message.max.bytes": 10 * limit, "compression.type": "lz4"})
    for value in values:
        producer.produce(family.topic.name, value, headers=[("large", noise[: limit // 2 - 1_000])], partition=0)
        assert producer.flush(_SECONDS) == 0
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        settled(worker, settings, family, len(values))
    assert [letter.value() for letter in dead_letters(settings, family, len(values))] == values


def test_parts_too_large_for_a_dead_letter_are_cut_and_delay_nothing(
    settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """Headers, or a value, fit the topic only with a stronger compression than the worker's."""
    family = prepare(settings).family("ui_events")
    noise = random.Random(1).randbytes(900_000)
    large = (noise + bytes(2_000_000)) * 3 + noise
    records: list[dict[str, Any]] = [
        {"value": b"first", "headers": [("small", b"1"), ("large", large)]},
        {"value": large, "key": b"key", "headers": [("small", b"1")]},
        {"value": b"last", "headers": [("small", b"1")]},
    ]
    producer = Producer(
        {
            **client_config(settings.kafka),
            "message.max.bytes": 10**8,
            "compression.type": "zstd",
            "compression.level": 12,
        }
    )
    for record in records:
        producer.produce(family.topic.name, partition=0, **record)
        assert producer.flush(_SECONDS) == 0
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        settled(worker, settings, family, len(records))
        assert worker.metric("chimera_records_rejected_total", reason="oversize") == 1
    letters = {_own(letter)["offset"]: letter for letter in dead_letters(settings, family, len(records))}
    first, second, last = (letters[str(offset)] for offset in range(3))
    assert (first.value(), second.value(), second.key(), last.value()) == (b"first", None, None, b"last")
    headers = hashlib.sha256(b"small1large" + large).hexdigest()
    assert _own(first)["cut.headers"] == f"{len(large) + 11} bytes, sha256 {headers}"
    assert _own(second)["cut.value"] == f"{len(large)} bytes, sha256 {hashlib.sha256(large).hexdigest()}"
    assert {name: value.split()[0] for name, value in _own(second).items() if name.startswith("cut.")} == {
        "cut.headers": "6",
        "cut.key": "3",
        "cut.value": str(len(large)),
    }
    assert not any(name.startswith("cut.") for name in _own(last))


def _own(letter: Message) -> dict[str, str]:
    """Headers that the worker added, by name without prefix."""
    headers: Any = letter.headers()
    return {name.removeprefix(_PREFIX): value.decode() for name, value in headers if name.startswith(_PREFIX)}


def _delete(settings: Settings, family: Family) -> Callable[[], None]:
    admin, name = AdminClient({**client_config(settings.kafka)}), family.dead_letters.name
    answer_to(lambda: admin.delete_topics([name])[name], _SECONDS)
    eventually(lambda: name not in admin.list_topics(timeout=_SECONDS).topics, "the topic is gone")
    return lambda: answer_to(lambda: admin.create_topics([NewTopic(name, 1, 1)])[name], _SECONDS)


def _shrink(settings: Settings, family: Family) -> Callable[[], None]:
    name = family.dead_letters.name
    set_limit(settings, name, 100)
    return lambda: set_limit(settings, name, family.dead_letters.max_message_bytes)


@pytest.mark.parametrize(
    ("spoil", "advice"),
    [
        pytest.param(_delete, "create it with `chimera topics apply`", id="the topic is gone"),
        pytest.param(_shrink, "raise dead_letters.max_message_bytes", id="its messages may not be so large"),
    ],
)
def test_a_topic_that_cannot_be_written_holds_its_source(
    settings: Settings,
    environ: dict[str, str],
    tmp_path: Path,
    spoil: Callable[[Settings, Family], Callable[[], None]],
    advice: str,
) -> None:
    """The worker isn't ready, commits and drops nothing of the family, and logs the reason; other families go on."""
    catalog = prepare(settings)
    family, other = catalog.family("ui_events"), catalog.family("llm_events")
    environ = {
        **environ,
        env_name("worker", "retry_backoff_max_seconds"): "0.5",
        env_name("log", "format"): "json",
    }
    good = [Encoder(family).encode(event).value for event in events(family.name, _EVENTS)]
    with Worker(environ, tmp_path / "log") as worker:
        worker.wait_until_consuming()
        mend = spoil(settings, family)
        publish(settings, family.topic.name, [*good, b"rejected"])
        publish(settings, other.topic.name, [Encoder(other).encode(event).value for event in events(other.name, 5)])
        worker.wait_for(lambda: worker.lines(advice), "a line that says what to do")
        assert advice in json.loads(worker.lines("can't be written")[0])["cause"]
        assert worker.waiting
        settled(worker, settings, other, 5)
        assert lag(settings, family.topic.name) == _EVENTS + 1
        assert worker.metric("chimera_records_rejected_total") == 0
        mend()
        settled(worker, settings, family, _EVENTS + 1)
        assert worker.ready
    assert dead_letters(settings, family, 1)[0].value() == b"rejected"
