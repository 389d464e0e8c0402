"""Requests to a broker that are made again while it refuses them for the moment, as one that has just started."""

from collections.abc import Callable
from concurrent.futures import Future
from time import monotonic, sleep
from typing import TypeVar

from confluent_kafka import Consumer, KafkaException, TopicPartition

from pipeline.kafka.failures import NOT_NOW

T = TypeVar("T")

_SECONDS = 120.0
_POLL_SECONDS = 0.2


def patiently(ask: Callable[[], T], seconds: float = _SECONDS) -> T:
    """Return the result of a request that may be made twice.

    Args:
        ask: makes the request; called again after each temporary refusal.
        seconds: time in which temporary refusals are accepted.

    Raises:
        KafkaException: any other refusal.
    """
    deadline = monotonic() + seconds
    while True:
        try:
            return ask()
        except KafkaException as error:
            if error.args[0].code() not in NOT_NOW or monotonic() > deadline:
                raise
        sleep(_POLL_SECONDS)


def answer_to(ask: Callable[[], Future[T]], seconds: float = _SECONDS) -> T:
    """Return the answer to a request of an admin client; see `patiently`.

    Raises:
        KafkaException: a refusal that isn't temporary.
        TimeoutError: no answer in time.
    """
    return patiently(lambda: ask().result(seconds), seconds)


def watermarks(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """Return the first offset of a partition's log and its end; see `patiently`."""
    first, end = patiently(lambda: consumer.get_watermark_offsets(partition, _SECONDS))
    return first, end
