"""A deriver that remembers its calls, and a group member that has it."""

import asyncio
from typing import Any

from pipeline.config import KafkaSettings
from pipeline.transport.broker import TopicPartition
from pipeline.transport.deriver import Deriver
from pipeline.transport.micro_batch import MicroBatch
from pipeline.transport.options import TransportOptions
from support.fake_broker import FakeDeriver
from support.faust_member import Member, small_batches, until
from support.processes import PATIENCE_SECONDS

SESSION_SECONDS = 6.0  # the least that the broker takes


class Derived(FakeDeriver):
    """Deriver that needs partition 0 from an offset on, and remembers its calls.

    Args:
        topic: topic it derives from.
        needed: offset of the first record it needs; defaults to the committed offset.
        acks: True if its agent acknowledges micro-batches.
    """

    def __init__(self, topic: str, needed: int | None = None, *, acks: bool = True) -> None:
        super().__init__(needed, topic)
        self.got: list[MicroBatch] = []
        self._acks = acks

    async def get(self, batch: MicroBatch) -> None:
        """Remember a micro-batch, as the deriver's agent."""
        self.got.append(batch)
        if self._acks:
            batch.ack()


def derived_options(derived: Deriver, **options: Any) -> TransportOptions:
    return small_batches(*derived.topics, deriver=derived, **options)


def deriving_member(kafka: KafkaSettings, derived: Derived, **options: Any) -> Member:
    return Member(
        kafka, derived_options(derived, **options), derive=derived.get, broker_session_timeout=SESSION_SECONDS
    )


async def taken_over(member: Member, topic: str) -> None:
    await until(lambda: member.app.consumer.held(TopicPartition(topic, 0)), "taken over")


async def close(member: Member, topic: str, offset: int, hour: int) -> bool:
    closed: bool = await member.app.consumer.close_by_clock(TopicPartition(topic, 0), offset, hour)
    return closed


async def close_in_the_end(member: Member, topic: str, offset: int, hour: int) -> None:
    """Close once both agents have acknowledged everything."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await close(member, topic, offset, hour):  # noqa: ASYNC110 (the broker is what is asked)
            await asyncio.sleep(0.02)
