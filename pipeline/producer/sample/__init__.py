"""Realistic sample events of all families, related as in the specification and repeatable by seed."""

import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pipeline.errors import ConfigError
from pipeline.producer.sample.stories import KINDS, Event, Story, StoryKind, World

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_HOUR_MS = 3_600_000
_PUSHES = 12  # commits per repository within a sample
_GAP_MS = 20_000  # distance of a story's events, if there are enough events
_OWN_WEIGHT = 5  # turns out of twenty
_FEWEST_EVENTS = 40  # per place of a story: stories must end in a short sample too


def sample(
    count: int,
    *,
    seed: int,
    start: datetime,
    hours: float,
    families: Collection[str] = (),
    told_in_hours: float | None = None,
    own: Mapping[str, Callable[[random.Random], Iterator[dict[str, Any]]]] | None = None,
) -> Iterator[Event]:
    """Yield `count` events in order of time, spread evenly over the `hours` after `start`; `ts` is in ms since 1970.

    With all families and at least 100 events, each family has an event. Each episode follows its watcher run, and each
    deployment its episode.

    Args:
        count: number of events.
        seed: the same seed, count, hours and families give the same events, and with the same start at the same times.
        start: an aware time; the first event comes right after it.
        hours: time span of the events.
        families: families of the events; empty for all.
        told_in_hours: time span in place of `hours`: the same events, closer together.
        own: families without a story here, with the function that yields their events.

    Raises:
        ConfigError: a family has no sample events.
    """
    kinds = [*KINDS, *(_kind_of(name, events) for name, events in (own or {}).items())]
    told_families = frozenset[str]().union(*(kind.families for kind in KINDS))
    wanted, known = frozenset(families or told_families), told_families | (own or {}).keys()
    if unknown := wanted - known:
        raise ConfigError(f"no sample events of {min(unknown)!r}; expected some of {', '.join(sorted(known))}")
    world = World(random.Random(seed))  # noqa: S311 (sample data, not secrets)
    kinds = [kind for kind in kinds if kind.families & wanted]
    told = _told(world, count, hours * _HOUR_MS / max(count, 1), wanted, kinds)
    span_ms = (hours if told_in_hours is None else told_in_hours) * _HOUR_MS
    return _timed(world, told, count, start, span_ms)


def _timed(world: World, told: Iterator[Event], count: int, start: datetime, span_ms: float) -> Iterator[Event]:
    first = (start - _EPOCH) / _MILLISECOND
    step = span_ms / max(count, 1)
    for number in range(count):
        if number % (count // _PUSHES + 1) == 0:
            world.push()
        family, event = next(told)
        event["ts"] = int(first + (number + world.rng.random()) * step)
        yield family, event


def _kind_of(name: str, events: Callable[[random.Random], Iterator[dict[str, Any]]]) -> StoryKind:
    """Make a kind of story of a family's events, none of which has to do with another."""
    return StoryKind(lambda world: ((name, event) for event in events(world.rng)), _OWN_WEIGHT, frozenset({name}))


def _told(
    world: World, count: int, step: float, families: frozenset[str], kinds: Sequence[StoryKind]
) -> Iterator[Event]:
    """Yield the events of many concurrent stories, without end: each turn takes one from a story of some kind."""
    weight = sum(kind.weight for kind in kinds)
    on: dict[StoryKind, list[Story]] = {}
    for kind in kinds:
        share = kind.weight / weight
        at_a_time = min(_GAP_MS * share / step, count * share / _FEWEST_EVENTS)
        on[kind] = [kind.story(world) for _ in range(max(1, int(at_a_time)))]
    turns = [kind for kind in kinds for _ in range(kind.weight)]
    while True:
        world.rng.shuffle(turns)
        for kind in turns:
            yield _next_of(on[kind], kind, world, families)


def _next_of(stories: list[Story], kind: StoryKind, world: World, families: frozenset[str]) -> Event:
    """Return the next wanted event of a random story; a story that has ended is replaced by a new one."""
    place = int(world.rng.random() * len(stories))
    while True:
        for event in stories[place]:
            if event[0] in families:
                return event
        stories[place] = kind.story(world)
