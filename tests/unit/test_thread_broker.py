"""Requests of the adapter to aiokafka: its errors become the pipeline's."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from aiokafka.errors import IllegalStateError
from aiokafka.structs import TopicPartition as Place

from pipeline.errors import UnavailableError
from pipeline.transport.adapter.broker import ThreadBroker
from pipeline.transport.broker import TopicPartition


class _Consumer:
    """Faust's consumer, whose partition has gone to another member."""

    async def seek(self, *_: Any) -> None:
        raise IllegalStateError("no state for partition")


class _Thread:
    consumer = _Consumer()


def test_a_seek_of_a_partition_that_is_gone_is_tried_again() -> None:
    """The takeover then requests a new assignment, as after any request without an answer."""
    broker = ThreadBroker(cast("Any", _Thread()))
    with pytest.raises(UnavailableError):
        asyncio.run(broker.seek(TopicPartition("events", 0), 7))


@pytest.mark.parametrize("answer", [{}, {Place("events", 0): -1}], ids=["no answer", "no offset"])
def test_an_offset_that_the_broker_does_not_tell_is_asked_for_again(answer: dict[Place, int]) -> None:
    """Aiokafka leaves a partition out of the offsets if it can't read the answer."""

    class _Offsets:
        async def beginning_offsets(self, _: Any) -> dict[Place, int]:
            return answer

    class _Asked:
        client = _Offsets()

        async def ask(self, request: Callable[[Any], Any], places: Any) -> Any:
            return await request(places)

    broker = ThreadBroker(cast("Any", _Asked()))
    with pytest.raises(UnavailableError, match="events-0"):
        asyncio.run(broker.earliest_offsets([TopicPartition("events", 0)]))
