"""Shares of a group's members: even over all topics, and sticky."""

from collections.abc import Mapping
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from pipeline.transport.balance import balance

TOPICS = {"bench_runs": 4, "llm_events": 4, "ui_events": 8, "watcher_runs": 4, "episodes": 4, "deployments": 4}

Shares = Mapping[str, Mapping[str, list[int]]]

sizes = st.dictionaries(st.sampled_from("abcdefg"), st.integers(1, 12), min_size=1)
held = st.dictionaries(
    st.sampled_from(["w0", "w1", "w2", "w3"]),
    st.dictionaries(st.sampled_from("abcdefg"), st.lists(st.integers(0, 14), unique=True)),
)


def _members(count: int) -> list[str]:
    return [f"w{number}" for number in range(count)]


def _of_all(topics: Mapping[str, int], count: int, before: Shares | None = None) -> Shares:
    return balance(topics, dict.fromkeys(_members(count), tuple(topics)), before or {})


def _totals(shares: Shares) -> list[int]:
    return sorted(sum(map(len, of.values())) for of in shares.values())


def _pairs(shares: Shares) -> set[tuple[str, str, int]]:
    return {(member, topic, number) for member, of in shares.items() for topic in of for number in of[topic]}


def test_three_workers_get_nine_or_ten_of_28_partitions() -> None:
    """And one or two partitions of each small topic."""
    shares = _of_all(TOPICS, 3)
    assert _totals(shares) == [9, 9, 10]
    assert {len(of[topic]) for of in shares.values() for topic in TOPICS if topic != "ui_events"} == {1, 2}


@given(topics=sizes, count=st.integers(1, 9), before=held)
def test_each_partition_has_one_owner_and_shares_are_even(topics: dict[str, int], count: int, before: Shares) -> None:
    """Of each topic and in all, members differ by one at most, whatever they had before."""
    shares = _of_all(topics, count, before)
    owned = sorted((topic, number) for _, topic, number in _pairs(shares))
    assert owned == sorted((topic, number) for topic, size in topics.items() for number in range(size))
    assert _totals(shares)[-1] - _totals(shares)[0] <= 1
    for topic in topics:
        numbers = [len(of.get(topic, [])) for of in shares.values()]
        assert max(numbers) - min(numbers) <= 1


@given(topics=sizes, count=st.integers(1, 9), before=held)
def test_a_balanced_group_stays_as_it_is(topics: dict[str, int], count: int, before: Shares) -> None:
    """A rebalance without a change of members or topics moves nothing."""
    shares = _of_all(topics, count, before)
    assert _of_all(topics, count, shares) == shares


@given(count=st.integers(1, 9))
def test_a_new_worker_gets_its_share_and_nothing_else_moves(count: int) -> None:
    """Partitions move to the new worker, and one to another where the balance of a topic costs somebody one."""
    before = _of_all(TOPICS, count)
    moved = _pairs(_of_all(TOPICS, count + 1, before)) - _pairs(before)
    others = [member for member, _, _ in moved if member != f"w{count}"]
    assert len(others) <= (count == 6), others


@given(count=st.integers(2, 9), gone=st.integers(0, 8))
def test_only_the_partitions_of_a_worker_that_leaves_move(count: int, gone: int) -> None:
    """And those that keep the rest even: one for each topic at most."""
    before = _of_all(TOPICS, count)
    left = f"w{gone % count}"
    rest = [member for member in before if member != left]
    after = balance(TOPICS, dict.fromkeys(rest, tuple(TOPICS)), {member: before[member] for member in rest})
    moved = _pairs(after) - _pairs(before)
    assert len(moved) <= sum(map(len, before[left].values())) + len(TOPICS)


@given(topics=sizes, subscribed=st.lists(st.sets(st.sampled_from("abcdefg")), min_size=1, max_size=6), before=held)
def test_members_with_other_topics_get_only_theirs(
    topics: dict[str, int], subscribed: list[set[str]], before: Shares
) -> None:
    """As in a rolling upgrade that adds a topic; those with the same topics have even shares of each."""
    subscriptions = {f"w{number}": topics for number, topics in enumerate(subscribed)}
    shares = balance(topics, subscriptions, before)
    for topic, size in topics.items():
        members = [member for member in subscriptions if topic in subscriptions[member]]
        numbers = sorted(number for of in shares.values() for number in of.get(topic, []))
        assert numbers == (list(range(size)) if members else [])
        assert all(topic in subscriptions[member] for member in shares if topic in shares[member])
        for one, other in combinations(members, 2):
            assert abs(len(shares[one].get(topic, [])) - len(shares[other].get(topic, []))) <= 1
