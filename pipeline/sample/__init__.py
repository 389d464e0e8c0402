"""Realistic events of all families, which relate as in the specification, the same ones for the same seed."""

import random
from collections.abc import Collection, Iterator
from datetime import UTC, datetime, timedelta

from pipeline.errors import ConfigError
from pipeline.sample.stories import KINDS, Event, Story, StoryKind, World

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_PUSHES = 12  # commits of each repository over the time that a sample covers
_GAP_MS = 20_000  # a story's events are about so far apart, where there are events enough
_FEWEST_EVENTS = 40  # of a story's place in the sample, so that stories come to their end in a short one, too


def sample(count: int, *, seed: int, start: datetime, hours: float, families: Collection[str] = ()) -> Iterator[Event]:
    """`count` events, evenly spread over the `hours` after `start`, in order of time; `ts` in milliseconds since 1970.

    With all families and 100 events or more there is at least one of each. Each episode has its watcher run, and each
    deployment its episode, before it.

    Args:
        count: how many.
        seed: the same seed, count, start, hours and families give the same events.
        start: aware; the first event comes right after it.
        hours: how long a time the events cover.
        families: only these; all when there are none.

    Raises:
        ConfigError: there are no sample events of a family.
    """
    known = frozenset[str]().union(*(kind.families for kind in KINDS))
    wanted = frozenset(families or known)
    if unknown := wanted - known:
        raise ConfigError(f"no sample events of {min(unknown)!r}; expected some of {', '.join(sorted(known))}")
    return _sample(count, random.Random(seed), start, hours, wanted)  # noqa: S311 (sample data, not secrets)


def _sample(count: int, rng: random.Random, start: datetime, hours: float, families: frozenset[str]) -> Iterator[Event]:
    first = (start - _EPOCH) / _MILLISECOND
    step = hours * 3_600_000 / max(count, 1)
    world = World(rng)
    told = _told(world, count, step, families)
    for number in range(count):
        if number % (count // _PUSHES + 1) == 0:
            world.push()
        family, event = next(told)
        event["ts"] = int(first + (number + rng.random()) * step)
        yield family, event


def _told(world: World, count: int, step: float, families: frozenset[str]) -> Iterator[Event]:
    """The events of many stories at a time, without end: each turn goes to a kind of story, and to one that is on."""
    kinds = [kind for kind in KINDS if kind.families & families]
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
    """The next wanted event of any of the stories; one that has ended makes room for a new one."""
    place = int(world.rng.random() * len(stories))
    while True:
        for event in stories[place]:
            if event[0] in families:
                return event
        stories[place] = kind.story(world)
