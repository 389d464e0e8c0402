"""Faust's messages that carry micro-batches, until the micro-batches are acknowledged or let go."""

from collections.abc import Callable, Iterable, MutableSet
from typing import Any

from pipeline.transport.micro_batch import MicroBatch


class Deliveries:
    """Messages of the micro-batches in flight.

    Args:
        unacked: Faust's set of messages that agents have taken; Faust waits for it to be empty.
    """

    def __init__(self, unacked: Callable[[], MutableSet[Any]]) -> None:
        self._unacked = unacked
        self._messages: dict[MicroBatch, Any] = {}

    def add(self, batch: MicroBatch, message: Any) -> None:
        """Note the message that carries a micro-batch."""
        self._messages[batch] = message

    def taken(self) -> list[MicroBatch]:
        """Return the micro-batches that agents have taken and not acknowledged."""
        unacked = self._unacked()
        return [batch for batch, message in self._messages.items() if message in unacked]

    def forget(self, batch: MicroBatch) -> None:
        """Have Faust not wait for a micro-batch."""
        if message := self._messages.pop(batch, None):
            self._unacked().discard(message)

    def forget_lost(self) -> None:
        """Have Faust not wait for micro-batches whose partitions were let go."""
        for batch in [batch for batch in self._messages if not batch.live]:
            self.forget(batch)

    def forget_queued(self, events: Iterable[Any]) -> None:
        """Have Faust not wait for micro-batches in agents' queues that it clears."""
        for event in events:
            if isinstance(event.value, MicroBatch):
                self.forget(event.value)
