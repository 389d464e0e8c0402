"""`ui_events` of a fixed number of sessions, out of order, but never later than the grace."""

import heapq
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

from benchmarks.workload import FAMILY, START
from pipeline.config import Settings
from pipeline.producer.sample import sample
from pipeline.producer.sample.stories import Event

HOUR_MS = 3_600_000
_SEED = 7
_CLOSERS = 256  # sessions; the chance that one of eight partitions gets none is 1 in 10**14


@dataclass(frozen=True, slots=True)
class Shape:
    """Number of events, of their sessions and of their hours."""

    events: int
    sessions: int
    hours: int


def first_hour() -> int:
    """Number of the first hour of the events, in hours since 1970."""
    return round(START.timestamp()) // 3600


def shuffled(shape: Shape, settings: Settings) -> Iterator[Event]:
    """Yield events of random sessions, evenly spread over the hours; each comes at most the grace after its time."""
    rng = random.Random(_SEED)
    grace_ms = int(settings.rollup.grace_seconds * 1000)
    sessions = session_ids(shape.sessions)
    told = sample(shape.events, seed=_SEED, start=START, hours=shape.hours, families=[FAMILY])
    under_way: list[tuple[float, int, Event]] = []
    for number, (family, event) in enumerate(told):
        event["session_id"] = rng.choice(sessions)
        while under_way and under_way[0][0] <= event["ts"]:
            yield heapq.heappop(under_way)[2]
        heapq.heappush(under_way, (event["ts"] + rng.random() * grace_ms, number, (family, event)))
    while under_way:
        yield heapq.heappop(under_way)[2]


def one_each(sessions: Sequence[str], minutes: int) -> Iterator[Event]:
    """Yield one event of each session, in order of time, in the first minutes of the first hour."""
    told = sample(len(sessions), seed=_SEED, start=START, hours=minutes / 60, families=[FAMILY])
    for session, (family, event) in zip(sessions, told, strict=True):
        yield family, {**event, "session_id": session}


def closing(shape: Shape, settings: Settings) -> Iterator[Event]:
    """Yield events that close all hours of `shape`, in every partition."""
    at_ms = (first_hour() + shape.hours) * HOUR_MS + int(settings.rollup.grace_seconds * 1000)
    return at(at_ms, session_ids(_CLOSERS))


def at(ts: int, sessions: Sequence[str]) -> Iterator[Event]:
    """Yield one event of each session, all with the same time."""
    for family, event in one_each(sessions, minutes=1):
        yield family, {**event, "ts": ts}


def session_ids(count: int) -> list[str]:
    """Return random UUIDs, the same on every call."""
    rng = random.Random(_SEED)
    return [str(UUID(int=rng.getrandbits(128), version=4)) for _ in range(count)]
