"""Partitions without a commit: the app is asked before their logs are consumed from the beginning."""

import asyncio
from collections.abc import Sequence

import pytest
from support.fake_broker import TP, FakeBroker, Worker, committed, ranges_of

from pipeline.errors import ChimeraError, HaltError, UnavailableError
from pipeline.transport.broker import Beginning, Commit, Suspicion, TopicPartition
from pipeline.transport.commit_metadata import Ranges

UNCOMMITTED = Beginning(TP, 0, Suspicion.UNCOMMITTED)
VANISHED = Beginning(TP, 0, Suspicion.VANISHED)


class _Tables:
    """Tables that the app looks at; they refuse what they are told to."""

    def __init__(self, error: ChimeraError | None = None) -> None:
        self.asked: list[Beginning] = []
        self.error = error

    def check(self, beginnings: Sequence[Beginning]) -> None:
        self.asked += beginnings
        if self.error:
            raise self.error


@pytest.mark.parametrize(
    ("records", "commits", "asked"),
    [
        pytest.param(10, {}, [UNCOMMITTED], id="a log with records"),
        pytest.param(0, {}, [], id="a log without records"),
        pytest.param(10, {TP: committed(0)}, [], id="a commit"),
    ],
)
def test_the_tables_are_looked_at_before_a_log_is_consumed(
    records: int, commits: dict[TopicPartition, Commit], asked: list[Beginning]
) -> None:
    """A partition with a commit or without records stores nothing again."""
    tables = _Tables()
    broker = FakeBroker(logs={TP: []}, commits=dict(commits))
    broker.produce(records)

    async def scenario() -> None:
        worker = Worker(broker, check_beginnings=tables.check)
        await worker.assign()
        assert worker.held == {TP}

    asyncio.run(scenario())
    assert tables.asked == asked


def test_a_beginning_is_committed_before_a_record_of_it_is_delivered() -> None:
    """Another worker that takes the partition over, idle or not, doesn't take it for one whose commit is lost."""
    broker = FakeBroker(logs={TP: []})

    async def scenario() -> None:
        worker = Worker(broker)
        await worker.assign()
        assert worker.held == {TP}

    asyncio.run(scenario())
    assert broker.commits == {TP: committed(0)}


def test_a_refused_beginning_halts() -> None:
    """Nothing is held, so nothing is stored or committed."""
    broker = FakeBroker()
    broker.produce(10)
    refusal = HaltError("rows are there")

    async def scenario() -> None:
        worker = Worker(broker, check_beginnings=_Tables(refusal).check)
        await worker.assign()
        assert worker.failures == [refusal]
        assert worker.held == set()

    asyncio.run(scenario())
    assert broker.commits == {}


def test_tables_that_do_not_answer_are_asked_again() -> None:
    """The next look at the topics has the partitions assigned anew, and that takeover succeeds."""
    broker = FakeBroker()
    broker.produce(10)
    tables = _Tables(UnavailableError("ClickHouse is away"))

    async def scenario() -> None:
        worker = Worker(broker, check_beginnings=tables.check)
        await worker.assign()
        assert (worker.held, broker.rejoins, worker.failures) == (set(), 0, [])
        await worker.member.topics.check()
        assert broker.rejoins == 1
        tables.error = None
        await worker.assign()
        assert ranges_of(await worker.fetch()) == [(0, 9)]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "commits", [{}, {TP: Commit(7, str(Ranges("elsewhere", (2, 3))))}], ids=["no commit", "a foreign commit"]
)
def test_a_suspect_does_not_stall_the_other_partitions(commits: dict[TopicPartition, Commit]) -> None:
    """Tables that don't answer keep one partition waiting; nothing of it is committed."""
    other = TopicPartition("events", 1)
    broker = FakeBroker(commits={other: committed(0), **commits})
    broker.produce(10)
    broker.produce(10, other)

    async def scenario() -> None:
        worker = Worker(broker, check_beginnings=_Tables(UnavailableError("ClickHouse is away")).check)
        await worker.assign()
        assert (worker.held, broker.rejoins) == ({other}, 0)
        assert ranges_of(await worker.fetch()) == [(0, 9)]

    asyncio.run(scenario())
    assert {tp: commit for tp, commit in broker.commits.items() if tp != other} == commits


def test_a_commit_of_this_worker_that_vanished_is_told() -> None:
    """Also of a log without records: the tokens of its next records are known already."""
    broker = FakeBroker()
    broker.produce(10)
    tables = _Tables()

    async def scenario() -> None:
        worker = Worker(broker, check_beginnings=tables.check)
        await worker.assign()
        await worker.fetch()
        assert set(broker.commits) == {TP}
        broker.commits.clear()
        broker.logs[TP].clear()
        await worker.assign()

    asyncio.run(scenario())
    assert tables.asked == [UNCOMMITTED, VANISHED]


def test_a_topic_that_was_created_anew_while_the_worker_ran_is_new() -> None:
    """Kafka has forgotten its commits, and its records are others."""
    broker = FakeBroker()
    broker.produce(10)
    tables = _Tables()

    async def scenario() -> None:
        worker = Worker(broker, check_beginnings=tables.check)
        await worker.assign()
        await worker.fetch()
        broker.ids["events"] = "another"
        broker.commits.clear()
        await worker.assign()
        assert ranges_of(await worker.fetch()) == [(0, 9)]

    asyncio.run(scenario())
    assert tables.asked == [UNCOMMITTED]


@pytest.mark.parametrize("commits", [{}, {TP: committed(10, topic_id="another")}], ids=["by itself", "by another"])
def test_a_topic_that_was_created_anew_is_new_only_until_its_first_commit(
    commits: dict[TopicPartition, Commit],
) -> None:
    """Afterwards, a partition without a commit may be one whose commit was lost."""
    other = TopicPartition("events", 1)
    broker = FakeBroker(commits={TP: committed(0)})
    broker.produce(10)
    tables = _Tables()

    async def scenario() -> None:
        worker = Worker(broker, check_beginnings=tables.check)
        await worker.assign()
        broker.ids["events"] = "another"
        broker.commits = dict(commits)
        await worker.assign()
        await worker.fetch()
        assert tables.asked == []
        broker.produce(10, other)
        await worker.assign()

    asyncio.run(scenario())
    assert tables.asked == [Beginning(other, 0, Suspicion.UNCOMMITTED)]


@pytest.mark.parametrize("records", [10, 0], ids=["records", "no records"])
def test_an_offset_of_a_topic_that_the_worker_never_saw_is_told(records: int) -> None:
    """The ranges may be at other offsets than the commit; the log may get the copied records later."""
    tables = _Tables()
    broker = FakeBroker(logs={TP: []}, commits={TP: Commit(7, str(Ranges("elsewhere", (2, 3))))})
    broker.produce(records)

    async def scenario() -> None:
        worker = Worker(broker, check_beginnings=tables.check)
        await worker.assign()
        assert worker.failures == []

    asyncio.run(scenario())
    assert tables.asked == [Beginning(TP, 0, Suspicion.FOREIGN, "elsewhere")]
    assert broker.commits == {TP: committed(0)}, "the next worker finds no other topic's commit"


def test_an_offset_of_the_topic_that_was_there_before_is_no_foreign_one() -> None:
    """A worker that didn't know yet that the topic was created anew may commit once more."""
    tables = _Tables()
    broker = FakeBroker(commits={TP: committed(0)})
    broker.produce(10)

    async def scenario() -> None:
        worker = Worker(broker, check_beginnings=tables.check)
        await worker.assign()
        broker.commits[TP] = committed(7)
        broker.ids["events"] = "another"
        await worker.assign()
        assert ranges_of(await worker.fetch()) == [(0, 9)]

    asyncio.run(scenario())
    assert tables.asked == []
