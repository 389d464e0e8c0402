"""The parts of `chimera verify` that need no server: the list of differences, the places of dead letters, the words."""

from typing import Any
from uuid import UUID

import numpy as np
import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from pipeline.clickhouse.coordinates import Source
from pipeline.columns import Ints
from pipeline.config import KafkaSettings
from pipeline.kafka.offsets import TopicReader
from pipeline.operations.lineage.extents import Extent
from pipeline.operations.lineage.lettered import Lettered
from pipeline.operations.lineage.report import FamilyReport, Fault, PartitionReport
from pipeline.operations.lineage.stored import STRETCH, StoredRows, Stretch, lookups

_SOURCE = Source(UUID(int=1), 3)


class _Client:
    """Answers each query with the next of these rows."""

    def __init__(self, *answers: list[tuple[Any, ...]]) -> None:
        self.queries: list[str] = []
        self._answers = list(answers)

    def execute(self, query: str, *_: Any, **__: Any) -> list[tuple[Any, ...]]:
        self.queries.append(query)
        return [(self._answers.pop(0),)]


def _report(limit: int) -> FamilyReport:
    partitions = {0: PartitionReport(0, 0, 0, 0)}
    return FamilyReport("ui_events", "ui_events", "chimera.ui_events", UUID(int=1), partitions, limit)


def _ints(*numbers: int) -> Ints:
    return np.array(numbers, np.int64)


def test_successive_offsets_are_one_entry_across_calls() -> None:
    """The hours of an entry are those of its first and its last event."""
    report = _report(10)
    report.note(Fault.LOST_ROW, 0, _ints(3, 4, 7), _ints(20, 21, 22))
    report.note(Fault.LOST_ROW, 0, _ints(8, 9), _ints(19, 25))
    report.note(Fault.LOST_ROW, 1, _ints(10), _ints(25))
    report.note(Fault.LOST_LETTER, 1, _ints(11), None)
    found = [
        (each.fault, each.partition, each.first, each.last, each.first_hour, each.last_hour) for each in report.listed
    ]
    assert found == [
        (Fault.LOST_ROW, 0, 3, 4, 20, 21),
        (Fault.LOST_ROW, 0, 7, 9, 19, 25),
        (Fault.LOST_ROW, 1, 10, 10, 25, 25),
        (Fault.LOST_LETTER, 1, 11, 11, None, None),
    ]


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_the_list_is_bounded(limit: int) -> None:
    """A million isolated offsets make no longer list, and the entries are the first."""
    report = _report(limit)
    report.note(Fault.LOST_ROW, 0, np.arange(0, 2_000_000, 2), None)
    assert [each.first for each in report.listed] == [0, 2, 4][:limit]


def test_a_dead_letter_counts_once_and_those_of_an_earlier_topic_not_at_all() -> None:
    """The newest record at a place decides: an earlier topic had the same offsets."""
    lettered = Lettered()
    lettered.add(iter([(0, 5, 100), (0, 5, 900), (0, 7, 100), (1, 6, 900), (0, 70, 900)]))
    assert lettered.offsets(0, range(10)).tolist() == [5, 7]
    assert lettered.offsets(0, range(10), since=500).tolist() == [5]
    assert lettered.offsets(0, range(6, 7)).tolist() == []


def test_only_records_that_are_older_than_the_kept_dead_letters_may_have_lost_theirs() -> None:
    """While the dead-letter topic is whole, none may."""
    times = _ints(99, 100, 101)
    assert Lettered().may_have_gone(times).tolist() == [False, False, False]
    assert Lettered(kept_since=100).may_have_gone(times).tolist() == [True, True, False]
    assert Lettered(kept_since=float("inf")).may_have_gone(times).all()


def test_words_become_offsets() -> None:
    """A stretch may begin and end within a word; words with more rows than bits are named."""
    offsets = range(1000, 1130)
    client = _Client([([3, 3, 4], [15, 17, 16], [1 << 40 | 1 << 63, 3, 1], [2, 4, 1])])
    stretches = [Stretch(Source(_SOURCE.topic_id, number), offsets, rows=6, times=(0, 1)) for number in (3, 4)]
    found, other = StoredRows(client, "ui_events", [Extent(_SOURCE, 1000, 1130)]).presences(stretches)
    assert (np.flatnonzero(found.present) + 1000).tolist() == [1000, 1023, 1088, 1089]
    assert (found.rows, found.doubled_words.tolist(), len(found.present)) == (6, [17], 130)
    assert (np.flatnonzero(other.present) + 1000).tolist() == [1024]


def test_stretches_cover_all_offsets_once() -> None:
    """Also those without rows; they need no look-up."""
    begin, end = STRETCH - 10, 3 * STRETCH + 5
    client = _Client([(3, 1, 1, 7, 7, STRETCH, STRETCH + 6, 50, 60), (3, 2, 0, 2, 2, end, end, 70, 80)], [(4, 5)])
    survey = StoredRows(client, "ui_events", [Extent(_SOURCE, begin, end)]).survey()
    assert [each.offsets.start for each in survey.stretches] == [begin, STRETCH, 2 * STRETCH, 3 * STRETCH]
    assert sum(map(len, survey.stretches)) == end - begin
    assert [each.rows for each in survey.stretches] == [0, 7, 0, 0]
    assert (survey.rows, survey.last, survey.first) == ({3: (0, 7, 2)}, {3: end}, {3: STRETCH})
    assert (survey.unknown, survey.other_topics) == (4, 5)
    (nothing,) = StoredRows(client, "ui_events", [Extent(_SOURCE, begin, end)]).presences(survey.stretches[:1])
    assert not nothing.present.any()
    assert len(client.queries) == 2


def test_the_command_asks_again_while_the_coordinator_moves() -> None:
    """A group's first commit, or a broker that stops, makes its coordinator refuse for a moment."""
    moving = KafkaException(KafkaError(KafkaError.NOT_COORDINATOR))
    answers: list[Any] = [moving, moving, [TopicPartition("t", 0, 7), TopicPartition("t", 1, -1001)]]

    class Moving:
        def committed(self, *_: Any) -> Any:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

    with TopicReader(KafkaSettings(), "t") as reader:
        real, reader._consumer = reader._consumer, Moving()  # type: ignore[assignment]
        assert reader.committed([0, 1]) == {0: 7, 1: None}
        reader._consumer = real


def test_stretches_are_looked_up_together_up_to_a_bound() -> None:
    """So a table is read once for many partitions, and the words of one answer fit in memory."""
    many = [Stretch(Source(_SOURCE.topic_id, number), range(STRETCH), 1, None) for number in range(6)]
    assert [len(group) for group in lookups(many)] == [4, 2]
    assert list(lookups([])) == []
