"""Requests of the adapter to aiokafka: its errors become the pipeline's."""

import asyncio
from typing import Any, cast

import pytest
from aiokafka.errors import IllegalStateError

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
