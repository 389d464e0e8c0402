"""What the transport is told by an app: which topics come as micro-batches, and what is derived from them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from faust.types import TP

from pipeline.catalog import BatchPolicy
from pipeline.errors import ChimeraError
from pipeline.transport.batches import Takeover


class Deriver(Protocol):
    """Derives something from topics, beside ingest: an agent of its own, whose state is a function of the log.

    Its agent gets the micro-batches that ingest's gets, the same objects, and acknowledges them too.
    """

    @property
    def topics(self) -> frozenset[str]:
        """Which; all have a batch policy."""
        ...

    async def take_over(self, taken: Mapping[TP, Takeover]) -> Mapping[TP, int]:
        """Get ready for partitions before anything of them comes; cancelled when they are assigned anew meanwhile.

        Returns:
            Offset of the first record that is needed of each.

        Raises:
            KafkaError, UnavailableError: to be tried again, with an assignment of its own.
            ChimeraError: going on makes no sense.
        """
        ...

    async def release(self, partitions: set[TP]) -> None:
        """They go, and are still ours: what isn't done in the rest of the drain is cancelled."""
        ...


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """Topics that an app gets as micro-batches, and the limits on these; the app's attribute `transport_options`."""

    policies: Mapping[str, BatchPolicy] = field(default_factory=dict)
    """Topic to batch policy; in the app, the topic's serializers are `raw`."""
    batches_in_flight: int = 2
    """Of one partition, between cut and ack."""
    max_bytes: int = 32 * 1024 * 1024
    """Keys and values in memory, of all partitions; above it fetching pauses."""
    drain_seconds: float = 8.0
    """How long a rebalance or a stop waits for micro-batches in flight."""
    topic_ids: Callable[[Iterable[str]], Mapping[str, str]] = lambda topics: dict.fromkeys(topics, "-")
    """Asks the broker for the ids of those of the topics that there are; called in a thread, before each delivery."""
    halt: Callable[[ChimeraError], None] | None = None
    """Told of what makes going on impossible; without it the app crashes."""
    deriver: Deriver | None = None
    """What is derived from some of the topics."""

    def derived(self, partitions: Iterable[TP]) -> set[TP]:
        """Those of the deriver's topics."""
        return {tp for tp in partitions if self.deriver and tp.topic in self.deriver.topics}
