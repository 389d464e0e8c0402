"""Moments: the offsets of a time, and the backup to begin with.

The broker's timestamps define a moment: it has all records below the first one whose timestamp is at or after the time,
in each partition. So it is a cut through the log, made of offsets, and no clock of another machine takes part. A backup
is before a moment if none of its noted offsets is above the moment's.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from pipeline.catalog import Catalog
from pipeline.config import Settings
from pipeline.errors import ChimeraError
from pipeline.kafka.offsets import TopicReader
from pipeline.kafka.topics import TopicAdmin, check_topics_exist
from pipeline.operations.backup.manifest import BackupRecord


class UnreachableError(ChimeraError):
    """No backup and no log lead to the moment; nothing was changed."""


@dataclass(frozen=True, slots=True)
class MomentCut:
    """One topic at a moment.

    Args:
        topic: its name.
        topic_id: its id, as Kafka's clients write it.
        ends: first offset that isn't part of the moment, by partition.
        begins: first offset that the log holds, by partition.
    """

    topic: str
    topic_id: str
    ends: Mapping[int, int]
    begins: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Lost:
    """Offsets that neither the backup nor the log has: retention has passed beyond the backup's offsets."""

    topic: str
    partition: int
    offsets: range

    def __str__(self) -> str:
        """Name the range."""
        return f"{self.topic}, partition {self.partition}, offsets {self.offsets.start} to {self.offsets.stop - 1}"


@dataclass(frozen=True, slots=True)
class Start:
    """A backup to begin a recovery with.

    Args:
        record: backup.
        after: True if it was made after the moment, so that nothing has to be read from the log.
        lost: ranges that neither it nor the log has.
    """

    record: BackupRecord
    after: bool
    lost: tuple[Lost, ...]


def cuts_at(settings: Settings, catalog: Catalog, time: datetime, *, known: bool = False) -> dict[str, MomentCut]:
    """Return the offsets of a moment by family.

    Args:
        settings: the broker.
        catalog: families.
        time: the moment, exclusive.
        known: True if only the begins of the logs are asked for.

    Raises:
        UnreachableError: the log of a topic begins after the time, so its offsets aren't known any more.
        UnavailableError: Kafka doesn't answer.
        HaltError: Kafka refuses, or a topic is missing.
    """
    topics = [family.topic for family in catalog.families]
    ids = TopicAdmin(settings.kafka).ids(topic.name for topic in topics)
    check_topics_exist(settings.kafka, topics, ids)
    with ThreadPoolExecutor(len(topics)) as pool:
        names = [topic.name for topic in topics]
        found = pool.map(partial(_cut_at, settings, time, known=known), names, [ids[name] for name in names])
        return dict(zip((family.name for family in catalog.families), found, strict=True))


def _cut_at(settings: Settings, time: datetime, name: str, topic_id: str, *, known: bool) -> MomentCut:
    with TopicReader(settings.kafka, name) as reader:
        logs = reader.ranges()
        found = reader.first_since(round(time.timestamp() * 1000), logs)
    for number, log in logs.items():
        if log and log.start and found.get(number) == log.start and not known:
            raise UnreachableError(
                f"topic {name}, partition {number}: the log begins at {log.start}, after {time.isoformat()}: "
                "retention has deleted the records of that time; expected a later time, or a backup "
                "as it is: `chimera backup restore`"
            )
    ends = {number: found.get(number, log.stop) for number, log in logs.items()}
    return MomentCut(name, topic_id, ends, {number: log.start for number, log in logs.items()})


def choose(records: Iterable[BackupRecord], cuts: Mapping[str, MomentCut], name: str = "") -> Start:
    """Return the backup to begin with: the newest before the moment, unless the log lacks what follows it.

    Then the oldest after the moment is the next choice, because it needs no log.

    Args:
        records: all backups, the oldest first.
        cuts: offsets of the moment.
        name: name of the only backup to consider; empty for all.

    Raises:
        UnreachableError: there is no whole backup of these topics.
    """
    usable = [record for record in records if record.state == "ok" and record.whole and name in {"", record.name}]
    same = [record for record in usable if not _recreated(record, cuts)]
    if not same:
        raise UnreachableError(_why_none(usable, cuts, name))
    starts = [Start(record, after=not _before(record, cuts), lost=_lost(record, cuts)) for record in same]
    before = [start for start in starts if not start.after]
    after = [start for start in starts if start.after and not start.lost]
    whole = [start for start in before if not start.lost]
    return (whole[-1:] or after[:1] or before[-1:] or starts[:1])[0]


def _before(record: BackupRecord, cuts: Mapping[str, MomentCut]) -> bool:
    return all(
        offset <= cuts[family].ends.get(number, 0)
        for family, noted in record.noted.items()
        if family in cuts
        for number, offset in noted.offsets.items()
    )


def _lost(record: BackupRecord, cuts: Mapping[str, MomentCut]) -> tuple[Lost, ...]:
    noted = record.noted
    return tuple(
        Lost(cut.topic, number, range(first, min(cut.begins[number], end)))
        for family, cut in cuts.items()
        for number, end in cut.ends.items()
        if (first := noted[family].offsets.get(number, 0) if family in noted else 0) < min(cut.begins[number], end)
    )


def _recreated(record: BackupRecord, cuts: Mapping[str, MomentCut]) -> list[str]:
    """Return the topics that were created anew since the backup: its offsets say nothing about their logs."""
    return [
        cuts[family].topic
        for family, noted in record.noted.items()
        if family in cuts and noted.topic_id != cuts[family].topic_id
    ]


def _why_none(usable: Sequence[BackupRecord], cuts: Mapping[str, MomentCut], name: str) -> str:
    if not usable:
        what = f"backup {name} isn't one" if name else "there is none"
        return f"a recovery begins with a whole backup that is ok, and {what}: see `chimera backup list`"
    topic = _recreated(usable[-1], cuts)[0]
    return (
        f"topic {topic} was created anew since backup {usable[-1].name}: it has another topic id, so the backup's "
        "offsets say nothing about its log; expected a backup of this topic: restore one as it is with `chimera backup "
        "restore`, or make a new one"
    )
