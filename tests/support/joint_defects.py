"""Defects of joint inserts that schedules have to find, each put into a part of a worker."""

from collections.abc import Mapping
from typing import Any

from pipeline.rollup.emission import Emission
from pipeline.rollup.storing import HourStorer
from pipeline.transport.asking import until_answered
from pipeline.transport.broker import TopicPartition
from pipeline.transport.commit_metadata import JointInsert
from pipeline.transport.commits import Commits
from pipeline.transport.partition import PartitionBatches
from support.joint_inserts import Parts, Step
from support.joint_workers import HoursOf

Named = Mapping[PartitionBatches, JointInsert | None]


class Trusting(Emission):
    """Emission that doesn't check whether the committed state is as the insert needs it."""

    def _check(self, held: Any, _: Any) -> None:
        self._retry.check_lease(held)


class NeverCommits(Commits):
    """Names are set, and committed by chance."""

    async def name_joint_insert(self, joint_inserts: Named) -> bool:
        """Set."""
        for partition, joint_insert in joint_inserts.items():
            partition.joint_insert = joint_insert
        return all(partition.live for partition in joint_inserts)


class ForgetsAtLeisure(Commits):
    """A name that is forgotten may still be committed when an insert under another token begins (finding 1)."""

    async def name_joint_insert(self, joint_inserts: Named) -> bool:
        """Commit names alone."""
        if any(joint_inserts.values()):
            return await super().name_joint_insert(joint_inserts)
        for partition in joint_inserts:
            partition.joint_insert = None
        return all(partition.live for partition in joint_inserts)


class GivesUp(Commits):
    """A lost partition ends the wait for the others' commit; it isn't known what they have (finding 5)."""

    async def name_joint_insert(self, joint_inserts: Named) -> bool:
        """Wait while all are live."""
        for partition, joint_insert in joint_inserts.items():
            partition.joint_insert = joint_insert
        tps = [TopicPartition(each.topic, each.partition) for each in joint_inserts]

        def wanted() -> bool:
            return all(partition.live for partition in joint_inserts)

        await until_answered(lambda: self.commit(tps), wanted, self._context)
        return wanted()


class Reached(HourStorer):
    """The name goes when the hours are settled that are closed, though later ones may be in it (finding 3)."""

    async def _is_closed(self, partition: Any, held: Any, joint_insert: JointInsert) -> bool:
        await super()._is_closed(partition, held, joint_insert)
        return not partition.refused_days and await self._consumer().name_joint_insert({held: None})


class ActsByPartition(Commits):
    """A task of an earlier assignment changes the name of the partition that is back by now (finding 4)."""

    async def name_joint_insert(self, joint_inserts: Named) -> bool:
        """Look each partition up by its number."""
        held = self._assignment.partitions
        now = {TopicPartition(each.topic, each.partition): name for each, name in joint_inserts.items()}
        return await super().name_joint_insert({held[tp]: name for tp, name in now.items() if tp in held})


class Unfenced(Commits):
    """An answer to a joint insert counts, though a later owner may have used its token before (loses rows)."""

    async def name_joint_insert(self, joint_inserts: Named) -> bool:
        """Notice no loss after the insert."""
        return await super().name_joint_insert(joint_inserts) or not any(joint_inserts.values())


class Unlearning(HourStorer):
    """Hours of a joint insert count as new when the commit after it has lost one of its partitions."""

    async def _know_before(self, partition: Any, hour: int) -> None:
        pass


class KeepsDays(HourStorer):
    """Days that a joint insert was refused for count for the next one too."""

    async def _is_closed(self, partition: Any, held: Any, joint_insert: JointInsert) -> bool:
        days = set(partition.refused_days)
        closed = await super()._is_closed(partition, held, joint_insert)
        partition.refused_days |= days
        return closed


class JoinsUnsettled(HourStorer):
    """Hours that an earlier insert may have stored are joined too (finding 10)."""

    async def _new_hour_of(self, partition: Any, number: int) -> Any:
        held = partition.held(self._consumer())
        if held is None or held.joint_insert or number not in partition.derivation.closed_hours():
            return None
        return await self._hour_of(partition, held, number)


class Unknowing(HoursOf):
    """Hours of a joint insert that failed count as new."""

    def know_before(self, hour: int) -> None:
        """Learn nothing."""


class OwnTokensFirst(HourStorer):
    """A joint insert that may be under way isn't closed before the hours go under their own tokens."""

    async def _is_closed(self, partition: Any, held: Any, joint_insert: JointInsert) -> bool:
        partition.derivation.know_before(joint_insert.hour + 1)
        return await self._consumer().name_joint_insert({held: None})


BOTH: list[Step] = [("close", 0, []), ("close", 1, [])]
"""An hour closes in partitions 0 and 1."""
LOST: list[Step] = [*BOTH, ("store", 4, ["lost"])]
"""Their insert is under way, and partition 0 is lost."""
KNOWN: list[Step] = [*LOST, ("settle", 0, []), ("wait", 3, []), ("reassign", 7, []), ("settle", 4, ["lost"])]
"""The server knows its token by partition 1 alone, and for a while; a later owner of partition 0 has sent its rows."""

DEFECTS: dict[str, tuple[Parts, list[Step]]] = {
    "names-are-not-committed": (
        Parts(commits=NeverCommits, emission=Trusting),
        [("commit", 0, []), *LOST, ("reassign", 7, []), ("settle", 0, []), ("arrive", 0, [])],
    ),
    "forgotten-names-are-committed": (
        Parts(commits=ForgetsAtLeisure, emission=Trusting),
        [
            *LOST,
            *[("settle", 0, []), ("reassign", 7, []), ("settle", 0, []), ("wait", 3, []), ("commit", 0, [])],
            *[("wait", 0, []), ("settle", 4, ["lost"]), ("reassign", 7, []), ("wait", 0, []), ("settle", 0, [])],
        ],
    ),
    "hours-that-are-open-count-as-settled": (
        Parts(storer=Reached),
        [*LOST, ("reassign", 32 + 7, []), ("settle", 0, []), ("close", 0, []), ("settle", 0, []), ("arrive", 0, [])],
    ),
    "name-of-another-generation": (
        Parts(commits=ActsByPartition, emission=Trusting),
        [
            *[*BOTH, ("store", 0, []), *BOTH, ("store", 48, []), ("reassign", 0, []), ("settle", 1, [])],
            *[
                *BOTH,
                ("store", 5, ["lost"]),
                ("reassign", 7, []),
                ("thaw", 0, []),
                ("settle", 0, []),
                ("arrive", 0, []),
            ],
        ],
    ),
    "begin-without-an-answer": (
        Parts(commits=GivesUp, emission=Trusting),
        [
            *[("commit", 0, []), *BOTH, ("store", 0, ["let go"]), ("settle", 4, ["lost"])],
            *[("reassign", 7, []), ("settle", 0, []), ("arrive", 0, [])],
        ],
    ),
    "an-answer-counts": (
        Parts(commits=Unfenced),
        [("close", 18, []), ("store", 56, []), ("reassign", 16 + 1, []), ("replay", 0, []), ("settle", 0, [])],
    ),
    "answered-hours-count-as-new": (
        Parts(storer=Unlearning),
        [*BOTH, ("store", 0, ["taken", "let go"]), ("store", 0, []), ("settle", 0, [])],
    ),
    "days-of-another-insert": (
        Parts(storer=KeepsDays),
        [
            *[("close", 2, []), *LOST, ("settle", 0, []), ("wait", 3, []), ("wait", 0, []), ("settle", 0, [])],
            *[("close", 1, []), ("close", 2, []), ("store", 4, ["lost"]), ("settle", 0, []), ("arrive", 0, [])],
        ],
    ),
    "unsettled-hours-are-joined": (
        Parts(storer=JoinsUnsettled),
        [*BOTH, ("store", 0, []), ("reassign", 8 + 7, []), ("store", 0, [])],
    ),
    "failed-hours-count-as-new": (
        Parts(derivation=Unknowing),
        [
            *[("close", 2, []), *LOST, ("settle", 24, []), ("wait", 3, []), ("thaw", 0, ["lost"]), ("wait", 1, [])],
            *[("arrive", 0, []), ("wait", 3, []), ("settle", 0, []), ("store", 0, [])],
        ],
    ),
    "own-tokens-first": (Parts(storer=OwnTokensFirst), [*LOST, ("reassign", 7, []), ("settle", 0, [])]),
    "no-wait-after-a-refusal": (
        Parts(arrival_seconds=-1),
        [*KNOWN, ("reassign", 7, []), ("settle", 0, []), ("wait", 1, [])],
    ),
    "repeated-for-ever": (
        Parts(repeat_seconds=1000),
        [
            *[*BOTH, ("store", 0, []), *BOTH, ("store", 48, ["silent"]), ("wait", 3, []), ("thaw", 0, ["lost"])],
            *[("wait", 1, []), ("arrive", 0, [])],
        ],
    ),
}
"""By name: parts of a worker with the defect, and a schedule that finds it and is no trouble without it."""
