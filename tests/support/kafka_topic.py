"""A topic of a test's own, used from outside of any app: produce, delete, commit, read commits."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Self

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as Place
from confluent_kafka import ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

from pipeline.config import KafkaSettings
from pipeline.kafka.client import client_config
from pipeline.kafka.leaders import wait_for_leaders
from support.kafka_requests import answer_to

_ADMIN_SECONDS = 120.0


class Topic:
    """A topic of the test's own.

    Args:
        kafka: the broker, and the group that commits.
        name: second part of the topic's name, behind the group's.
        partitions: number of partitions.
    """

    def __init__(self, kafka: KafkaSettings, name: str = "events", partitions: int = 1) -> None:
        self._use(kafka, f"{kafka.group_id}.{name}", partitions)
        self._create()

    @classmethod
    def existing(cls, kafka: KafkaSettings, name: str, partitions: int) -> Self:
        """Return a topic that exists, by its whole name."""
        topic = cls.__new__(cls)
        topic._use(kafka, name, partitions)
        return topic

    def _use(self, kafka: KafkaSettings, name: str, partitions: int) -> None:
        self.name = name
        self._kafka = kafka
        self._partitions = partitions
        self._admin = AdminClient({**client_config(kafka)})

    def create_anew(self) -> None:
        """Delete the topic, and create another one under its name."""
        answer_to(lambda: self._admin.delete_topics([self.name])[self.name])
        self._create()

    def produce(self, values: Iterable[bytes | None], partition: int = 0, codec: str = "none") -> None:
        """Produce records, and wait until the broker has them."""
        producer = Producer(client_config(self._kafka) | {"compression.type": codec, "linger.ms": 20})
        for value in values:
            producer.produce(self.name, value, partition=partition)
        assert producer.flush(_ADMIN_SECONDS) == 0

    def delete_records(self, before: int) -> None:
        """Delete the records of partition 0 below this offset, as retention does."""
        where = TopicPartition(self.name, 0, before)
        answer_to(lambda: self._admin.delete_records([where])[where])

    def commit(self, offset: int, metadata: str = "", partition: int = 0) -> None:
        """Commit for the group, which must have no members."""
        place = Place(self.name, partition)
        asyncio.run(self._as_consumer(lambda consumer: consumer.commit({place: (offset, metadata)}), place))

    @property
    def end(self) -> int:
        """End of partition 0's log."""
        place = TopicPartition(self.name, 0)
        latest: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call] # confluent-kafka declares no types here
        return int(answer_to(lambda: self._admin.list_offsets({place: latest})[place]).offset)

    @property
    def committed(self) -> dict[int, int]:
        """Committed offsets of the group, by partition."""
        group = self._kafka.group_id
        asked = [ConsumerGroupTopicPartitions(group)]
        offsets = answer_to(lambda: self._admin.list_consumer_group_offsets(asked)[group]).topic_partitions
        return {each.partition: each.offset for each in offsets if each.topic == self.name}

    def read_commit(self) -> tuple[int, str]:
        """Return offset and metadata of the commit of partition 0. Don't call it in an event loop."""
        place = Place(self.name, 0)
        commits = asyncio.run(
            self._as_consumer(lambda consumer: consumer._coordinator.fetch_committed_offsets([place]), place)
        )
        offset, metadata = commits[place]
        return offset, metadata

    async def _as_consumer(self, work: Callable[[Any], Awaitable[Any]], place: Place) -> Any:
        # aiokafka's consumer, because librdkafka writes and expects a zero byte behind metadata.
        group, servers = self._kafka.group_id, self._kafka.bootstrap_servers
        async with AIOKafkaConsumer(group_id=group, bootstrap_servers=servers, enable_auto_commit=False) as consumer:
            consumer.assign([place])
            return await work(consumer)

    @property
    def members(self) -> set[str]:
        """Ids of the group's members, as the broker gave them."""
        group = self._kafka.group_id
        described = answer_to(lambda: self._admin.describe_consumer_groups([group])[group])
        return {member.member_id for member in described.members}

    def _create(self) -> None:
        answer_to(lambda: self._admin.create_topics([NewTopic(self.name, self._partitions, 1)])[self.name])
        wait_for_leaders(self._kafka, {self.name: self._partitions})
