"""Requests of an admin client, made again while a broker refuses them for the moment, as one that has just started."""

from collections.abc import Callable
from concurrent.futures import Future
from time import monotonic, sleep
from typing import TypeVar

from confluent_kafka import KafkaException

from pipeline.kafka.failures import NOT_NOW
from support.processes import PATIENCE_SECONDS

T = TypeVar("T")

_POLL_SECONDS = 0.2


def answer_to(ask: Callable[[], Future[T]], seconds: float = PATIENCE_SECONDS) -> T:
    """Return the answer to a request that may be made twice.

    Args:
        ask: makes the request; called again after each temporary refusal.
        seconds: time for each answer, and in which temporary refusals are accepted.

    Raises:
        KafkaException: any other refusal.
        TimeoutError: no answer in time.
    """
    deadline = monotonic() + seconds
    while True:
        try:
            return ask().result(seconds)
        except KafkaException as error:
            if error.args[0].code() not in NOT_NOW or monotonic() > deadline:
                raise
        sleep(_POLL_SECONDS)
