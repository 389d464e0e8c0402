"""Runs the hostile cases through a real worker, each between two valid neighbours, and compares the verdicts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, Message, Producer, TopicPartition
from support.events import rows, settled
from support.kafka_requests import watermarks
from support.processes import Worker, prepare

from hostile.case import Case, Maker, identity
from hostile.cases import all_cases
from hostile.foreign import registry
from pipeline.catalog import Family
from pipeline.config import Settings, env_name
from pipeline.devstack.ports import HOST, free_port
from pipeline.kafka.client import client_config

_SECONDS = 60
_PREFIX = "chimera.error."
_CODEC = {"compression.type": "lz4", "message.max.bytes": 10**8, "linger.ms": 50}
REASON = f"{_PREFIX}reason"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a run."""

    cases: int
    wrong: Sequence[str]
    """Cases with a wrong verdict: name, expected and actual verdict."""
    lost: Sequence[str]
    """Valid neighbours that aren't stored exactly once."""
    inserts: Mapping[str, int]
    """Family to the number of inserts of its rows."""


def run(settings: Settings, environ: Mapping[str, str], directory: Path) -> Outcome:
    """Publish all cases, let a worker consume them, and compare the verdicts.

    The registry starts after the worker, which must decide nothing without it.

    Args:
        settings: settings of broker and database; neither has our topics and tables yet.
        environ: environment of the worker, with the same settings.
        directory: directory for its log.
    """
    catalog = prepare(settings)
    cases = all_cases(catalog)
    by_family = [(family, [case for case in cases if case.family == family.name]) for family in catalog.families]
    for family, some in by_family:
        _publish(settings, family, some)
    port = free_port()
    environ = {**environ, env_name("registry", "url"): f"http://{HOST}:{port}"}
    with Worker(environ, directory / "worker.log") as worker:
        worker.wait_for(lambda: worker.lines("schema registry") and worker.waiting, "a worker without a registry")
        assert worker.metric("chimera_records_rejected_total", family="ui_events") == 0, "rejected without a registry"
        with registry(port):
            for family, some in by_family:
                settled(worker, settings, family, 2 * len(some) + 1)
        inserts = {
            family.name: round(worker.metric("chimera_rows_per_insert_count", family=family.name))
            for family, _ in by_family
        }
        assert worker.terminate() == 0  # frees the consumer group for the next worker
    wrong = [line for family, some in by_family for line in _wrong(settings, family, some)]
    lost = [line for family, some in by_family for line in _lost(settings, family, some)]
    return Outcome(len(cases), wrong, lost, inserts)


def _neighbour(number: int) -> str:
    return f"neighbour {number}"


def _publish(settings: Settings, family: Family, cases: Sequence[Case]) -> None:
    """Publish all in one partition: case n has offset 2n + 1, with a valid record before and after it."""
    maker, producer = Maker(family), Producer({**client_config(settings.kafka), **_CODEC})
    topic = family.topic.name
    for number, case in enumerate(cases):
        producer.produce(topic, maker.valid(_neighbour(number)), partition=0)
        producer.produce(topic, case.value, partition=0, headers=list(case.headers), timestamp=case.timestamp_ms)
    producer.produce(topic, maker.valid(_neighbour(len(cases))), partition=0)
    assert producer.flush(_SECONDS) == 0


def _wrong(settings: Settings, family: Family, cases: Sequence[Case]) -> list[str]:
    """Describe the cases that were neither stored nor rejected as expected."""
    verdicts = _letters(settings, family)
    stored = _stored(settings, family)
    wrong = []
    for number, case in enumerate(cases):
        reason = verdicts.pop(2 * number + 1, None)
        if reason != case.reason or stored[case.key] != (case.reason is None):
            wrong.append(f"{case.name}: expected {case.reason or 'stored'}, got {reason or 'no dead letter'}")
    return [
        *wrong,
        *(f"{family.name}: offset {offset}: a neighbour was rejected as {verdicts[offset]}" for offset in verdicts),
    ]


def _lost(settings: Settings, family: Family, cases: Sequence[Case]) -> list[str]:
    stored = _stored(settings, family)
    numbers = range(len(cases) + 1)
    return [f"{family.name}: {_neighbour(number)}" for number in numbers if stored[identity(_neighbour(number))] != 1]


def _stored(settings: Settings, family: Family) -> Counter[str]:
    return Counter(str(row[family.key]) for row in rows(settings, family.table))


def _letters(settings: Settings, family: Family) -> dict[int, str]:
    """Source offset to reason, for all dead letters of the family."""
    consumer = Consumer({**client_config(settings.kafka), "group.id": "-"})
    try:
        partition = TopicPartition(family.dead_letters.name, 0, 0)
        count = watermarks(consumer, partition)[1]
        consumer.assign([partition])
        letters: list[Message] = consumer.consume(count, _SECONDS) if count else []
    finally:
        consumer.close()
    assert len(letters) == count
    said: list[dict[str, Any]] = [dict(letter.headers() or []) for letter in letters]
    return {int(headers[f"{_PREFIX}offset"]): headers[REASON].decode() for headers in said}
