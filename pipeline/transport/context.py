"""Context that the parts of a group member share."""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic

from pipeline.transport.assignment import Assignment
from pipeline.transport.broker import Broker, Flow, Log
from pipeline.transport.options import TransportOptions


@dataclass(frozen=True, slots=True)
class Context:
    """Objects that each part of a group member uses."""

    broker: Broker
    """Takes all requests."""
    flow: Flow
    """Delivery of the consumer."""
    options: TransportOptions
    """Options that the app gives."""
    log: Log
    """Logger of the consumer."""
    group: str
    """Name of the consumer group, for messages."""
    assignment: Assignment = field(default_factory=Assignment)
    """Partitions that this worker holds."""
    clock: Callable[[], float] = monotonic
    """Seconds, for lingers and drains."""
