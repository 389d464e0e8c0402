"""A cluster of two brokers behind proxies, in which the coordinator of every group can be moved.

    with KafkaCluster(directory) as cluster:        # `cluster.bootstrap_servers` leads through the proxies
        cluster.make_coordinator_movable()          # restarts broker 2: broker 1 is the coordinator from now on
        with cluster.proxy(1).holding(OFFSET_FETCH, "faust") as held:
            ...                                     # wait for `held`
            cluster.move_coordinator()              # a preferred-leader election: broker 2 is the coordinator

Broker 2 is the preferred leader of all partitions of `__consumer_offsets`. A broker that was restarted leads nothing,
until an election gives its partitions back; brokers do that by themselves some minutes later.
"""

from contextlib import ExitStack
from pathlib import Path
from typing import Self

from confluent_kafka import ElectionType, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from pipeline.devstack import KafkaBroker
from pipeline.devstack.kafka import new_cluster_id
from pipeline.devstack.ports import HOST, free_port
from support.kafka_proxy import KafkaProxy
from support.processes import eventually

_ADMIN_SECONDS = 120.0
_OFFSETS, _OFFSETS_PARTITIONS = "__consumer_offsets", 2
_MOVED = 2  # the broker that is restarted; broker 1 is the controller too
_PROPERTIES = {
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT",
    "inter.broker.listener.name": "PLAINTEXT",
    "auto.leader.rebalance.enable": "false",
    "default.replication.factor": "2",
    "offsets.topic.replication.factor": "2",
    "offsets.topic.num.partitions": str(_OFFSETS_PARTITIONS),
    "transaction.state.log.replication.factor": "2",
}


class KafkaCluster:
    """Two brokers and a proxy before each; they run while the context lasts.

    Args:
        directory: for configuration, data and logs.
    """

    def __init__(self, directory: Path) -> None:
        self._cluster_id = new_cluster_id()
        self._controller = free_port()
        self._brokers: dict[int, KafkaBroker] = {}
        self._proxies: dict[int, KafkaProxy] = {}
        for number in (1, _MOVED):
            self._add_broker(number, directory / str(number))
        self._running = ExitStack()

    def _add_broker(self, number: int, directory: Path) -> None:
        direct, behind, proxy = free_port(), free_port(), free_port()
        listeners = [f"PLAINTEXT://{HOST}:{direct}", f"PROXIED://{HOST}:{behind}"]
        if number == 1:
            listeners.append(f"CONTROLLER://{HOST}:{self._controller}")
        properties = {
            **_PROPERTIES,
            "node.id": str(number),
            "process.roles": "broker,controller" if number == 1 else "broker",
            "controller.quorum.voters": f"1@{HOST}:{self._controller}",
            "listeners": ",".join(listeners),
            "advertised.listeners": f"PLAINTEXT://{HOST}:{direct},PROXIED://{HOST}:{proxy}",
        }
        self._brokers[number] = KafkaBroker(directory, port=direct, properties=properties, cluster_id=self._cluster_id)
        self._proxies[number] = KafkaProxy(behind, proxy)

    def __enter__(self) -> Self:
        with ExitStack() as starting:
            for number, broker in self._brokers.items():
                broker.start()
                starting.callback(broker.stop)
                starting.enter_context(self._proxies[number])
            self._admin = self._new_admin()
            replicas = [[_MOVED, 1]] * _OFFSETS_PARTITIONS
            config = {"cleanup.policy": "compact"}
            created = self._admin.create_topics(
                [NewTopic(_OFFSETS, len(replicas), replica_assignment=replicas, config=config)]
            )
            created[_OFFSETS].result(_ADMIN_SECONDS)
            self._running = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    @property
    def bootstrap_servers(self) -> str:
        """Address of the proxies."""
        return ",".join(f"{HOST}:{proxy.port}" for proxy in self._proxies.values())

    def broker(self, number: int) -> KafkaBroker:
        """Return a broker by its id."""
        return self._brokers[number]

    def proxy(self, number: int) -> KafkaProxy:
        """Return the proxy before a broker."""
        return self._proxies[number]

    def coordinator(self, group: str) -> int | None:
        """Return the id of the broker that coordinates a group; None while it moves."""
        admin = self._new_admin()  # a client remembers the coordinator, and asks the former one again
        try:
            described = admin.describe_consumer_groups([group])[group].result(_ADMIN_SECONDS)
        except KafkaException:
            return None
        number: int = described.coordinator.id
        return number

    def make_coordinator_movable(self) -> None:
        """Restart broker 2, and wait until broker 1 coordinates all groups and broker 2 has all data again."""
        self._brokers[_MOVED].stop()
        eventually(lambda: self._leaders() == {1}, "broker 1 coordinates")
        self._brokers[_MOVED].start()
        eventually(self._in_sync, "broker 2 has all data")

    def move_coordinator(self) -> None:
        """Have broker 2 elected, as it is preferred, and wait until it leads."""
        partitions = [TopicPartition(_OFFSETS, number) for number in range(_OFFSETS_PARTITIONS)]
        elected = self._admin.elect_leaders(ElectionType.PREFERRED, partitions).result(_ADMIN_SECONDS)
        if errors := [error for error in elected.values() if error is not None]:
            raise errors[0]
        eventually(lambda: self._leaders() == {_MOVED}, "broker 2 coordinates")

    def _new_admin(self) -> AdminClient:
        direct = ",".join(broker.bootstrap_servers for broker in self._brokers.values())
        return AdminClient({"bootstrap.servers": direct, "log_level": 0})

    def _leaders(self) -> set[int]:
        offsets = self._admin.list_topics(_OFFSETS, _ADMIN_SECONDS).topics[_OFFSETS]
        return {partition.leader for partition in offsets.partitions.values()}

    def _in_sync(self) -> bool:
        topics = self._admin.list_topics(timeout=_ADMIN_SECONDS).topics.values()
        return all(
            set(partition.isrs) == set(partition.replicas)
            for topic in topics
            for partition in topic.partitions.values()
        )
