"""Shares of a group's members: as many partitions for each as for the others, of each topic and in all; few move."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping

Partitions = Mapping[str, Collection[int]]
"""Numbers of partitions by topic."""


def balance(
    sizes: Mapping[str, int], subscriptions: Mapping[str, Collection[str]], held: Mapping[str, Partitions]
) -> dict[str, dict[str, list[int]]]:
    """Share the partitions of all topics among the members.

    Members that subscribe to the same topics differ by one partition at most, of each topic and in all. Only partitions
    above a member's share move.

    Args:
        sizes: number of partitions by topic.
        subscriptions: topics by member.
        held: partitions that each member had so far, by member; they may be of another time, and contradict each other.

    Returns:
        Partitions by member and topic, ascending; a member without partitions of a topic lacks the topic.
    """
    members = {topic: sorted(one for one in subscriptions if topic in subscriptions[one]) for topic in sizes}
    kept = {topic: _owners(sizes[topic], topic, members[topic], held) for topic in sorted(sizes) if members[topic]}
    quotas = _quotas(sizes, members, {topic: Counter(owners.values()) for topic, owners in kept.items()})
    shares: dict[str, dict[str, list[int]]] = {member: {} for member in subscriptions}
    for topic, owners in kept.items():
        for partition, member in sorted(_shared(sizes[topic], owners, quotas[topic])):
            shares[member].setdefault(topic, []).append(partition)
    return shares


def _owners(size: int, topic: str, members: list[str], held: Mapping[str, Partitions]) -> dict[int, str]:
    """Return the member that has each partition; the first of several, and none for a partition that is free."""
    owners: dict[int, str] = {}
    for member in members:
        for partition in sorted(held.get(member, {}).get(topic, ())):
            if partition < size:
                owners.setdefault(partition, member)
    return owners


def _quotas(
    sizes: Mapping[str, int], members: Mapping[str, list[str]], kept: Mapping[str, Counter[str]]
) -> dict[str, dict[str, int]]:
    """Return how many partitions each member gets, by topic: one more than others goes to a member that has it."""
    quotas: dict[str, dict[str, int]] = {}
    totals: Counter[str] = Counter()
    before = sum(kept.values(), Counter[str]())
    for topic, have in kept.items():
        least, more = divmod(sizes[topic], len(members[topic]))
        ranked = sorted(members[topic], key=lambda one: (-min(have[one], least + 1), before[one], totals[one], one))
        quotas[topic] = {member: least + (rank < more) for rank, member in enumerate(ranked)}
        totals.update(quotas[topic])
    while shift := _next_shift(quotas, totals, kept):
        topic, giver, taker = shift
        quotas[topic][giver] -= 1
        quotas[topic][taker] += 1
        totals[giver] -= 1
        totals[taker] += 1
    return quotas


def _next_shift(
    quotas: Mapping[str, dict[str, int]], totals: Counter[str], kept: Mapping[str, Counter[str]]
) -> tuple[str, str, str] | None:
    """Return topic, giver and taker of a partition whose move makes totals more even; None if there is none."""
    ranked = sorted(totals, key=lambda member: (totals[member], member))
    for giver in reversed(ranked):
        for taker in ranked:
            if totals[giver] - totals[taker] <= 1:
                break
            topics = [topic for topic, of in quotas.items() if taker in of and of.get(giver, 0) > of[taker]]
            if topics:
                return (min(topics, key=lambda topic: _moves(quotas[topic], kept[topic], giver, taker)), giver, taker)
    return None


def _moves(quotas: Mapping[str, int], have: Counter[str], giver: str, taker: str) -> int:
    """Partitions of the topic that would move in addition."""
    return (have[giver] >= quotas[giver]) - (have[taker] > quotas[taker])


def _shared(size: int, owners: Mapping[int, str], quotas: Mapping[str, int]) -> Iterator[tuple[int, str]]:
    """Yield each partition with its member: the owner while its quota lasts, then the member with the most room."""
    room = dict(quotas)
    free = []
    for partition in range(size):
        owner = owners.get(partition)
        if owner is not None and room[owner]:
            room[owner] -= 1
            yield partition, owner
        else:
            free.append(partition)
    for partition in free:
        member = max(sorted(room), key=lambda one: room[one])
        room[member] -= 1
        yield partition, member
