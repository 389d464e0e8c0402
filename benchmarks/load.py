"""`python -m benchmarks.load`: produce events at a fixed rate, and write down when each was produced.

A process of its own, so that the measurement and the production don't wait for each other. Each event gets the present
time as `ts`. Partitions are numbered here, so an event's offset is its number in its partition.
"""

import pickle
import time
from itertools import cycle
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import click
import numpy as np
from confluent_kafka import Message

from benchmarks.registry import SCHEMA_ID
from benchmarks.workload import usual
from pipeline.catalog import Family
from pipeline.config import Settings
from pipeline.kafka.producing import RecordProducer
from pipeline.producer.encode import Encoder

_TICK_SECONDS = 0.005
_STAMP_EVERY = 32  # events that share a time; they are produced within 0.1 ms
_TIME_BYTES = 6  # of a zigzag varint of milliseconds, from 2004 to 2039


class Prepared(NamedTuple):
    """An encoded event, without its time."""

    partition: int
    key: bytes
    head: bytes
    tail: bytes


def prepare(family: Family, partitions: int, count: int, file: Path) -> None:
    """Encode different events for all runs at once, and write them to a file."""
    encoder, events = Encoder(family, SCHEMA_ID), []
    frame = len(encoder.encode(next(usual(1))[1]).value) and 5  # Confluent's frame; `ts` is the first field
    for _, event in usual(count):
        key, value = encoder.encode(event)
        assert value[frame : frame + _TIME_BYTES] == time_bytes(event["ts"])
        events.append(Prepared(crc32(key) % partitions, key, value[:frame], value[frame + _TIME_BYTES :]))
    file.write_bytes(pickle.dumps([tuple(event) for event in events]))


def time_bytes(ts: int) -> bytes:
    """Avro's form of a time in milliseconds since 1970."""
    left, out = ts << 1, bytearray()
    while left > 0x7F:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    out.append(left)
    return bytes(out)


class _Load:
    """Producer that keeps a rate."""

    def __init__(self, topic: str, partitions: int, events: list[Prepared]) -> None:
        self._topic = topic
        self._events = cycle(events)
        self.times: list[list[int]] = [[] for _ in range(partitions)]
        self._refused = 0
        self._producer = RecordProducer(
            Settings().kafka,
            {
                "enable.idempotence": True,
                "acks": "all",
                "compression.type": "lz4",
                "linger.ms": 5,
                "queue.buffering.max.messages": 1_000_000,
                "delivery.report.only.error": True,
                "on_delivery": self._delivered,
            },
        )

    def run(self, rate: int, seconds: float) -> None:
        begun, sent, total = time.monotonic(), 0, int(rate * seconds)
        while sent < total:
            due = min(total, int((time.monotonic() - begun) * rate))
            while sent < due:
                count = min(_STAMP_EVERY, due - sent)
                self._produce(count)
                sent += count
            self._producer.poll(0)
            time.sleep(_TICK_SECONDS)
        self._producer.flush()
        if self._refused:
            raise SystemExit(f"{self._refused} events refused, or not delivered in time")

    def _produce(self, count: int) -> None:
        ts, now = time_bytes(time.time_ns() // 1_000_000), time.monotonic_ns()
        for _ in range(count):
            partition, key, head, tail = next(self._events)
            self.times[partition].append(now)
            self._producer.produce(self._topic, head + ts + tail, key, partition=partition)

    def _delivered(self, error: object, _: Message) -> None:
        self._refused += error is not None


@click.command()
@click.argument("topic")
@click.argument("partitions", type=int)
@click.argument("rate", type=int)
@click.argument("seconds", type=float)
@click.argument("events", type=click.Path(path_type=Path))
@click.argument("times", type=click.Path(path_type=Path))
def main(*, topic: str, partitions: int, rate: int, seconds: float, events: Path, times: Path) -> None:
    """Produce EVENTS to TOPIC for some SECONDS, RATE a second; write TIMES: by partition, ns of the monotonic clock."""
    load = _Load(topic, partitions, [Prepared(*each) for each in pickle.loads(events.read_bytes())])
    load.run(rate, seconds)
    unfinished = times.with_suffix(".part.npz")
    np.savez(unfinished, *(np.array(each, np.int64) for each in load.times))
    unfinished.rename(times)


if __name__ == "__main__":
    main()
