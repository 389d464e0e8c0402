"""Sample events are valid, repeatable, spread over time, and related as in the specification."""

from collections import Counter, defaultdict
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.catalog import load_catalog
from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.producer.encode import Encoder
from pipeline.producer.sample import sample

CATALOG = load_catalog(Settings())
START = datetime(2026, 1, 31, tzinfo=UTC)
HOURS = 24


def told(count: int, seed: int = 1, families: Collection[str] = ()) -> list[tuple[str, dict[str, Any]]]:
    return list(sample(count, seed=seed, start=START, hours=HOURS, families=families))


def by_family(count: int, seed: int = 1) -> dict[str, list[dict[str, Any]]]:
    events = defaultdict(list)
    for family, event in told(count, seed):
        events[family].append(event)
    return events


def test_the_same_seed_gives_the_same_events() -> None:
    """Another seed gives other events."""
    assert told(500) == told(500)
    assert told(500) != told(500, seed=2)


@given(count=st.integers(100, 1_000), seed=st.integers())
@settings(max_examples=40, deadline=None)
def test_a_hundred_events_hold_every_family(count: int, seed: int) -> None:
    """Most of them are ui_events and llm_events."""
    counts = Counter(family for family, _ in told(count, seed))
    assert counts.keys() == {family.name for family in CATALOG.families}
    assert counts["ui_events"] > count / 2
    assert counts["llm_events"] > counts["episodes"]


def test_every_event_is_valid() -> None:
    """The encoder, which is as strict as the worker, accepts all of them."""
    encoders = {family.name: Encoder(family) for family in CATALOG.families}
    for family, event in told(5_000):
        encoders[family].encode(event)


@pytest.mark.parametrize("count", [1, 99, 10_000])
def test_events_are_spread_over_the_hours_in_order(count: int) -> None:
    """No event is outside the time span, and each hour has about its share."""
    first = START.timestamp() * 1000
    times = [event["ts"] - first for _, event in told(count)]
    assert times == sorted(times)
    assert times[0] >= 0
    assert times[-1] < timedelta(hours=HOURS) / timedelta(milliseconds=1)
    hours = Counter(int(time // 3_600_000) for time in times)
    assert max(hours.values()) <= count / HOURS + 2


@pytest.mark.parametrize("seed", range(3))
def test_runs_relate_across_tables(seed: int) -> None:
    """Each episode follows its watcher run, each deployment its episode, and each call belongs to a run."""
    seen: dict[str, set[str]] = defaultdict(set)
    for family, event in told(5_000, seed):
        if family == "episodes":
            assert event["run_id"] in seen["watcher_runs"]
        if family == "deployments":
            assert event["episode_run_id"] in seen["episodes"]
            assert event["run_id"] not in seen["episodes"]
        if family == "llm_events" and event["source"] == "council":
            assert event["run_id"] in seen["watcher_runs"]
        seen[family].add(event.get("run_id", ""))
    assert len(seen["deployments"]) > 50
    assert seen["bench_runs"] <= seen["llm_events"]


def test_an_episode_costs_what_its_calls_cost() -> None:
    """Tokens and dollars of an episode are the sums over the calls of its run."""
    events = by_family(3_000)
    calls = defaultdict(list)
    for call in events["llm_events"]:
        calls[call["run_id"]].append(call)
    for episode in events["episodes"]:
        own = calls[episode["run_id"]]
        assert episode["tokens_total"] == sum(call["tokens_in"] + call["tokens_out"] for call in own)
        assert Decimal(episode["cost_total"]) == sum(Decimal(call["cost_usd"]) for call in own)


def test_commits_are_shared_between_tables() -> None:
    """Viewers use, and benchmarks measure, commits that the watcher has seen."""
    events = by_family(20_000)
    assert {event["commit_sha"] for event in events["ui_events"]} <= {
        run["packs_commit"] for run in events["watcher_runs"]
    }
    assert {run["commit_sha"] for run in events["bench_runs"]} <= {
        run["hearts_commit"] for run in events["watcher_runs"]
    }


def test_sessions_open_then_ask_or_leave_or_fail() -> None:
    """Every session starts with an open; abandoned opens, queries and errors occur; user agents are few."""
    sessions = defaultdict(list)
    for _, event in told(20_000, families=["ui_events"]):
        sessions[event["session_id"]].append(event)
    sequences = [[event["event_type"] for event in events] for events in sessions.values()]
    assert {sequence[0] for sequence in sequences} == {"overlay_open"}
    pairs = Counter(pair for sequence in sequences for pair in pairwise(sequence))
    assert pairs["overlay_open", "query_submit"] > pairs["overlay_open", "overlay_open"] > 100
    assert pairs["error", "query_submit"] > 100
    assert len({event["user_agent"] for events in sessions.values() for event in events}) < 10
    assert max(map(len, sequences)) > 10


def test_only_wanted_families_are_told() -> None:
    """The sample has the requested number of events, only of these families."""
    counts = Counter(family for family, _ in told(300, families=["ui_events", "deployments"]))
    assert counts.keys() == {"ui_events", "deployments"}
    assert counts.total() == 300


def test_a_family_without_samples_is_an_error() -> None:
    """The error names the family and the known families."""
    with pytest.raises(ConfigError, match=r"no sample events of 'orders'; expected some of bench_runs, "):
        told(1, families=["orders"])


def test_a_sample_that_is_told_faster_has_the_same_events() -> None:
    """Only their times differ: they are in order within the shorter span."""
    slow = told(500)
    fast = list(sample(500, seed=1, start=START, hours=HOURS, told_in_hours=0.5))
    times = [event["ts"] for _, event in fast]
    assert times == sorted(times)
    assert 0 <= times[0] - START.timestamp() * 1000 <= times[-1] - START.timestamp() * 1000 < 1_800_000
    assert [(family, event | {"ts": 0}) for family, event in slow] == [
        (family, event | {"ts": 0}) for family, event in fast
    ]
