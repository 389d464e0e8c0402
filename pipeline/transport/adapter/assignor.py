"""Faust's assignor, with shares that are even over all topics.

Name, version and data are Faust's. So workers of a version without it may be in the group: any of them may lead it.
"""

import zlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from faust.assignor import PartitionAssignor
from faust.assignor.client_assignment import ClientAssignment, ClientMetadata

from pipeline.transport.balance import balance


class BalancedAssignor(PartitionAssignor):
    """Assignor of an app without tables: it assigns no standbys."""

    def _perform_assignment(self, cluster: Any, member_metadata: Mapping[str, Any]) -> Any:
        """Share the partitions of all topics that the members subscribe to."""
        clients: Any = {member: self._get_client_metadata(metadata) for member, metadata in member_metadata.items()}
        subscriptions = {member: set(metadata.subscription) for member, metadata in member_metadata.items()}
        sizes = {
            topic: size
            for topic in set().union(*subscriptions.values())
            if (size := len(cluster.partitions_for_topic(topic) or ()))
        }
        shares = balance(sizes, subscriptions, {member: of.assignment.actives for member, of in clients.items()})
        self._update_member_urls(clients)
        assignments: Any = {member: ClientAssignment(actives=of, standbys={}) for member, of in shares.items()}
        return self._protocol_assignments(
            assignments,
            self._get_changelog_distribution(assignments),
            self._get_external_topic_distribution(assignments),
            {topic: sorted(set(sizes.values())).index(size) for topic, size in sizes.items()},
        )

    def on_assignment(self, assignment: Any) -> None:
        """Take the assignment, also one that was made for this worker at another address, as before its restart."""
        metadata: Any = ClientMetadata.loads(self._decompress(assignment.user_data))
        metadata.url = str(self._url)
        super().on_assignment(
            ConsumerProtocolMemberAssignment(
                assignment.version, assignment.assignment, self._compress(metadata.dumps())
            )
        )


def known_sizes(user_data: bytes) -> dict[str, int]:
    """Return how many partitions each topic had when an assignment was made, from the data beside it."""
    sizes: dict[str, int] = {}
    for share in _shares(user_data):
        for topic, partitions in share.items():
            sizes[topic] = max([sizes.get(topic, 0), *(partition + 1 for partition in partitions)])
    return sizes


def crowded(user_data: bytes) -> set[str]:
    """Return the topics of which one worker has several partitions, from the data beside an assignment."""
    return {topic for share in _shares(user_data) for topic, partitions in share.items() if len(partitions) > 1}


def _shares(user_data: bytes) -> Iterable[Mapping[str, Collection[int]]]:
    metadata: Any = ClientMetadata.loads(zlib.decompress(user_data))
    shares: Iterable[Mapping[str, Collection[int]]] = metadata.external_topic_distribution.values()
    return shares
