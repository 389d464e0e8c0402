"""Recent events, and the last hour in steps: what the page shows of the past."""

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise

from pipeline.kafka.standing import Standing
from pipeline.operations.monitor.state import Event, FamilyState, Health, History, Trouble
from pipeline.operations.monitor.troubles import duration

STEP_SECONDS = 30.0
STEPS = 120
_MOST_EVENTS = 60
FLAPPING_SECONDS = 900.0
_MOST_JOINS = 3
"""Times that each worker of a host may join within that time: a start, an upgrade, and one more."""
_NOTED = frozenset({"kafka-away", "clickhouse-away", "worker-halted"})  # noted already, by the look that found them
_BUSY = "rebalanc"  # within the names of the states in which partitions are given out


class Journal:
    """Recent events, found by comparing each look with the one before."""

    def __init__(self) -> None:
        self._events = deque[Event](maxlen=_MOST_EVENTS)
        self._before: Standing | None = None
        self._joins = deque[tuple[float, str]]()
        self._troubles: dict[tuple[str, str], Trouble] = {}

    @property
    def events(self) -> tuple[Event, ...]:
        """Recent events, the newest first."""
        return tuple(reversed(self._events))

    def note(self, at: float, kind: str, text: str) -> None:
        """Add an event."""
        self._events.append(Event(datetime.fromtimestamp(at, UTC), kind, text))

    def compare(self, at: float, standing: Standing) -> None:
        """Note what is different in the group since the last look."""
        before, self._before = self._before, standing
        if before is None:
            return
        old, new = ({member.id: member for member in each.members} for each in (before, standing))
        for gone in old.keys() - new.keys():
            self.note(at, "worker", f"a worker at {old[gone].host} left the group; {len(new)} left")
        for come in new.keys() - old.keys():
            self._joins.append((at, new[come].host))
            self.note(at, "worker", f"a worker at {new[come].host} joined the group; now {len(new)}")
        if _BUSY in standing.state and _BUSY not in before.state:
            self.note(at, "rebalance", "the group shares its partitions out anew")
        moved = _moved(before, standing)
        if moved and _BUSY not in standing.state:
            self.note(at, "rebalance", f"{moved} partitions have another owner")

    def flapping(self, now: float) -> dict[str, int]:
        """Return how often workers joined within a quarter of an hour, for hosts whose workers join again and again."""
        while self._joins and now - self._joins[0][0] > FLAPPING_SECONDS:
            self._joins.popleft()
        here = Counter(member.host for member in self._before.members) if self._before else Counter[str]()
        joins = Counter(host for _, host in self._joins)
        return {host: count for host, count in joins.items() if count > _MOST_JOINS * max(1, here[host])}

    def compare_troubles(self, at: float, troubles: Iterable[Trouble]) -> None:
        """Note which critical troubles have begun, and which are over."""
        old = self._troubles
        critical = (each for each in troubles if each.severity is Health.CRITICAL and each.id not in _NOTED)
        self._troubles = {(each.id, each.where): each for each in critical}
        for key in self._troubles.keys() - old.keys():
            self.note(at, "trouble", f"{key[1]}: {self._troubles[key].text}")
        for key in old.keys() - self._troubles.keys():
            lasted = duration(at - old[key].since.timestamp())
            self.note(at, "over", f"{key[1]}: over after {lasted}: {old[key].text}")


def _moved(before: Standing, after: Standing) -> int:
    owners = [{place: member.id for member in each.members for place in member.places} for each in (before, after)]
    return sum(1 for place, owner in owners[1].items() if owners[0].get(place) != owner)


class LastHour:
    """Totals of each family at the end of each step."""

    def __init__(self) -> None:
        self._steps = deque[tuple[float, Mapping[str, tuple[int, int]]]](maxlen=STEPS + 1)

    def add(self, at: float, families: Iterable[FamilyState]) -> None:
        """Add a look; the last look of a step stands for the step."""
        totals = {each.name: _totals(each) for each in families if _whole(each)}
        if self._steps and int(self._steps[-1][0] // STEP_SECONDS) == int(at // STEP_SECONDS):
            self._steps[-1] = (at, totals)
        else:
            self._steps.append((at, totals))

    def history(self, families: Iterable[str]) -> History:
        """Return the last hour, by family."""
        names, steps = list(families), list(self._steps)
        return History(
            step_seconds=STEP_SECONDS,
            consumed_per_second={name: _rates(name, steps) for name in names},
            lag_records={
                name: tuple(float(totals[name][1]) if name in totals else None for _, totals in steps) for name in names
            },
        )


def _whole(family: FamilyState) -> bool:
    return family.lag_records is not None and not family.leaderless


def _totals(family: FamilyState) -> tuple[int, int]:
    """Return the number of records consumed ever, and the lag."""
    positions = (max(part.committed or 0, part.begin or 0) for part in family.partitions)
    return sum(positions), family.lag_records or 0


def _rates(name: str, steps: Sequence[tuple[float, Mapping[str, tuple[int, int]]]]) -> tuple[float | None, ...]:
    rates: list[float | None] = []
    for (before, old), (after, new) in pairwise(steps):
        whole = name in old and name in new and after - before < 3 * STEP_SECONDS
        rates.append(max(0, new[name][0] - old[name][0]) / (after - before) if whole else None)
    return tuple(rates)
