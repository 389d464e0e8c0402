"""Options that an app gives the transport."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.catalog import BatchPolicy
from pipeline.errors import ChimeraError
from pipeline.transport.batch_format import MOST_UNPACKED
from pipeline.transport.broker import Beginning, TopicPartition
from pipeline.transport.deriver import Deriver
from pipeline.troubles import Troubles


async def _nothing() -> None:
    """Do nothing before a takeover."""


@dataclass(frozen=True, slots=True)
class TransportOptions:
    """Topics that an app gets as micro-batches, and their limits; the app's attribute `transport_options`."""

    policies: Mapping[str, BatchPolicy] = field(default_factory=dict)
    """Batch policy by topic; the app gives these topics the serializer `raw`."""
    batches_in_flight: int = 2
    """Limit of micro-batches of one partition that are cut and not acknowledged."""
    enough_in_flight: int = 4
    """Micro-batches in flight of a topic, below which incomplete micro-batches are cut early."""
    places: int = 3
    """Micro-batches in flight of a topic, from which the next one waits up to half a linger longer than its linger."""
    max_bytes: int = 40 * 1024 * 1024
    """Records in memory as they were fetched, compressed, of all partitions; fetching pauses above it."""
    max_unpacked_bytes: int = MOST_UNPACKED
    """Most bytes of the records of one of Kafka's batches, decompressed; a larger one halts the worker."""
    drain_seconds: float = 8.0
    """Time that a rebalance or a stop waits for micro-batches in flight."""
    topic_ids: Callable[[Iterable[str]], Mapping[str, str]] | None = None
    """Returns the ids of existing topics, in a thread, before each delivery; None asks the broker instead."""
    check_beginnings: Callable[[Sequence[Beginning]], None] = lambda _: None
    """Raises HaltError if records of these partitions are stored already; runs in a thread, before any is consumed."""
    before_takeover: Callable[[], Awaitable[None]] = _nothing
    """Raises HaltError if repeated inserts might be stored twice; awaited before partitions are taken over."""
    halt: Callable[[ChimeraError], None] | None = None
    """Called with a failure that makes going on impossible; without it, the app crashes."""
    deriver: Deriver | None = None
    """Second consumer of some of the topics."""
    retry_seconds: float = 1.0
    """Pause before the broker is asked again."""
    troubles: Troubles = field(default_factory=Troubles)
    """Told when the broker doesn't answer, and when it does again."""
    answer_seconds: float = 5.0
    """Time that the broker has to answer a request."""
    join_pause_seconds: float = 5.0
    """Pause before this worker asks again to be let into its group."""
    unclear_seconds: float = 60.0
    """Time for which an unforeseen failure to join the group is tried again."""
    silent_seconds: float = 15.0
    """Time without an answer of the group's coordinator after which it counts as a trouble."""
    leave_seconds: float = 3.0
    """Time that leaving the group may take."""
    topic_check_seconds: float = 10.0
    """Time between two checks for topics that were created anew or are missing."""

    def derived(self, partitions: Iterable[TopicPartition]) -> set[TopicPartition]:
        """Return the partitions that the deriver consumes too."""
        return {tp for tp in partitions if self.deriver and tp.topic in self.deriver.topics}

    def stop(self, error: ChimeraError) -> None:
        """Tell the app that going on is impossible.

        Raises:
            ChimeraError: the same, if the app has no `halt`.
        """
        if self.halt is None:
            raise error
        self.halt(error)
