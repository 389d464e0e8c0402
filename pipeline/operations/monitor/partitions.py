"""Partitions of all families over several looks, and what the model says about them."""

from collections.abc import Callable, Iterable, Mapping

from pipeline.catalog import Family
from pipeline.kafka.standing import LogPlace, Member, Standing
from pipeline.operations.monitor.consumption import PartitionWindow, Seen
from pipeline.operations.monitor.state import (
    Consumption,
    FamilyState,
    GroupState,
    MemberState,
    PartitionState,
    UnsettledLetters,
)
from pipeline.operations.monitor.workers import Words

MOST_ASKED = 64
"""Records whose timestamps are asked for at one look; more wait for the next look."""
_WORST = (Consumption.STOPPED, Consumption.STALLED, Consumption.WARNING, Consumption.UNKNOWN, Consumption.OK)
_BUSY = "rebalanc"


class PartitionWatch:
    """Windows of all partitions of the families' topics.

    Args:
        families: whose topics are watched.
    """

    def __init__(self, families: Iterable[Family]) -> None:
        self._topics = frozenset(family.topic.name for family in families)
        self._windows: dict[LogPlace, PartitionWindow] = {}
        self._owners: Mapping[LogPlace, str] = {}
        self._missing: frozenset[str] = frozenset()
        self._leaderless: frozenset[LogPlace] = frozenset()

    def add(self, at: float, standing: Standing) -> None:
        """Add a look."""
        if _BUSY not in standing.state:  # meanwhile members have no partitions, and keep them all the same
            self._owners = {place: label(member) for member in standing.members for place in member.places}
        self._missing = standing.missing
        there = {place for place in standing.ends if place.topic in self._topics}
        for place in standing.leaderless:
            if place.topic in self._topics:
                # Nothing is known of it, and its last state isn't the present one.
                self._windows[place] = PartitionWindow()
        self._leaderless = standing.leaderless
        for gone in [place for place in self._windows if place.topic in standing.missing]:
            del self._windows[gone]
        for place in there:
            end = standing.ends[place]
            seen = Seen(at, standing.begins.get(place, end), end, standing.commits.get(place), self._owners.get(place))
            self._windows.setdefault(place, PartitionWindow()).add(seen)

    def unknown(self) -> dict[LogPlace, int]:
        """Offsets whose records have to be asked for their timestamps, the longest queues first."""
        asked = {place: offset for place, window in self._windows.items() if (offset := window.unknown) is not None}
        longest = sorted(asked, key=lambda place: -self._lag(place))
        return {place: asked[place] for place in longest[:MOST_ASKED]}

    def learn(self, offsets: Mapping[LogPlace, int], times_ms: Mapping[LogPlace, int]) -> None:
        """Note the timestamps of the records at these offsets."""
        for place, time_ms in times_ms.items():
            self._windows[place].learn(offsets[place], time_ms / 1000)

    def consumed(self, family: Family) -> int:
        """Return the number of records of a family that were consumed ever."""
        windows = (window for place, window in self._windows.items() if place.topic == family.topic.name)
        return sum(window.newest.position for window in windows if window.newest)

    def family(
        self, family: Family, letters: UnsettledLetters, rejected_ratio: float | None, now: float
    ) -> FamilyState:
        """Return the state of a family."""
        retention = family.topic.retention_hours * 3600
        places = sorted(place for place in self._windows if place.topic == family.topic.name)
        windows = [self._windows[place] for place in places]
        parts = tuple(_partition(place, window, retention, now) for place, window in zip(places, windows, strict=True))
        leaderless = tuple(place.partition for place in places if place in self._leaderless)
        rates = [rate for window in windows if (rate := window.rates()) is not None]
        lags = [part.lag_records for part in parts if part.lag_records is not None]
        return FamilyState(
            name=family.name,
            topic=family.topic.name,
            table=family.table,
            missing=family.topic.name in self._missing,
            produced_per_second=sum(produced for produced, _ in rates) if rates else None,
            rejected_ratio=rejected_ratio,
            consumed_per_second=sum(consumed for _, consumed in rates) if rates else None,
            lag_records=sum(lags) if lags else None,
            lag_seconds=max((part.lag_seconds for part in parts if part.lag_seconds is not None), default=None),
            consumption=next((each for each in _WORST if each in {part.consumption for part in parts}), _WORST[3]),
            uncommitted=sum(part.committed is None and (part.end or 0) > 0 for part in parts),
            unowned=sum(part.owner is None and part.partition not in leaderless for part in parts),
            leaderless=leaderless,
            lost_records=sum(part.lost_records for part in parts),
            retention_left_seconds=min(
                (left for part in parts if (left := part.retention_left_seconds) is not None), default=None
            ),
            partitions=parts,
            dead_letters=letters,
        )

    def _lag(self, place: LogPlace) -> int:
        seen = self._windows[place].newest
        return seen.lag if seen else 0


def group_state(name: str, standing: Standing | None, words: Callable[[Member], Words | None]) -> GroupState:
    """Return the state of the group, with the words of its members; unknown without a look."""
    if standing is None:
        return GroupState(name, "unknown", ())
    members = (_member(member, words(member)) for member in standing.members)
    return GroupState(name, standing.state, tuple(sorted(members, key=lambda each: each.id)))


def _member(member: Member, words: Words | None) -> MemberState:
    ready = words.ready if words else None
    says = words.text if words and not words.ready else ""
    return MemberState(label(member), member.client, member.host, len(member.places), ready, says)


def label(member: Member) -> str:
    """Return a short name of a member: its host, and the end of its id, which differs between workers of a host."""
    return f"{member.host}#{member.id[-4:]}"


def _partition(place: LogPlace, window: PartitionWindow, retention_seconds: float, now: float) -> PartitionState:
    seen, age = window.newest, window.age(now)
    left = None if age is None or seen is None or not seen.lag else retention_seconds - age
    return PartitionState(
        partition=place.partition,
        begin=seen.begin if seen else None,
        end=seen.end if seen else None,
        committed=seen.committed if seen else None,
        lag_records=seen.lag if seen else None,
        lag_seconds=age,
        consumption=window.consumption(),
        owner=seen.owner if seen else None,
        lost_records=seen.lost if seen else 0,
        retention_left_seconds=left,
    )
