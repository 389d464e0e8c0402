"""Cases: the sample, and workloads that are worse in one respect each."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from benchmarks.stage import Stage
from benchmarks.workload import Workload, own_topics, publish, usual
from pipeline.producer.sample.stories import Event

Change = Callable[[int, dict[str, Any]], None]
"""Changes an event, given its number."""


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of workload."""

    name: str
    title: str
    change: Change | None = None
    codec: str = "lz4"
    partitions: int | None = None
    reject_every: int | None = None

    def events(self, count: int) -> Iterator[Event]:
        """Yield the events, all valid."""
        for number, (family, event) in enumerate(usual(count)):
            if self.change:
                self.change(number, event)
            yield family, event


def _metadata(key: str, template: str) -> Change:
    def change(number: int, event: dict[str, Any]) -> None:
        value: Any = template.format(number) if template else number
        event["metadata"] = json.dumps({**json.loads(event["metadata"]), key: value}, separators=(",", ":"))

    return change


def _agent(number: int, event: dict[str, Any]) -> None:
    event["user_agent"] += f" Build/{number}"


SAMPLE = Case("sample", "the sample")
METADATA = Case("metadata_distinct", "metadata all distinct, a declared number", _metadata("query_length", ""))
AGENTS = Case("agents_distinct", "user agents all distinct", _agent)

CASES = (
    SAMPLE,
    METADATA,
    Case("metadata_hashed", "metadata all distinct, a text to hash", _metadata("query", "question {}")),
    AGENTS,
    Case("rejects", "1 % rejected records", reject_every=100),
    Case("partitions_64", "64 partitions", partitions=64),
    Case("codec_none", "no codec", codec="none"),
    Case("codec_zstd", "codec zstd", codec="zstd"),
)


class Workloads:
    """Workloads of a stage; each is published when it is first asked for."""

    def __init__(self, place: Stage) -> None:
        self._place = place
        self._published: dict[tuple[str, int], Workload] = {}

    def get(self, case: Case, events: int) -> Workload:
        """Return the topic with this number of events of the case."""
        key = case.name, events
        if key not in self._published:
            place, name = self._place, f"{case.name}-{events}"
            settings = own_topics(place.settings, name, place.directory, partitions=case.partitions)
            bar = place.bar(f"publish {events:,}: {case.title}", events)
            self._published[key] = publish(settings, case.events(events), bar, case.reject_every, codec=case.codec)
        return self._published[key]
