"""Troubles: rules from the model to the sentences for a person, each with a way out in docs/runbook.md."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.operations.monitor.state import (
    BackupState,
    Consumption,
    FamilyState,
    GroupState,
    Health,
    RollupState,
    ServerState,
    StorageState,
    TableState,
    Trouble,
)

LETTERS_OLD_SECONDS = 86_400.0
LETTERS_MANY = 1000
PARTS_MANY, PARTS_TOO_MANY = 500, 1000
"""Parts of a day: ClickHouse slows inserts down at 1,000 and refuses them at 3,000."""
DISK_LOW, DISK_FULL = 0.15, 0.05
RETENTION_NEAR, RETENTION_AT_ONCE = 0.25, 0.1
"""Shares of the retention."""
STORED_SECONDS = 120.0
CLOCK_SECONDS = 5.0
SNAPSHOT_SECONDS, SNAPSHOTS = 600.0, 3
"""Least time without a snapshot that is a trouble; it is that of three snapshots, if that is more."""
_NAMED = 8  # partitions in a sentence

_WARNING, _CRITICAL = Health.WARNING, Health.CRITICAL


@dataclass(frozen=True, slots=True)
class Found:
    """A trouble without its begin."""

    id: str
    severity: Health
    where: str
    text: str
    action: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Parts of the model that the rules look at."""

    now: float
    kafka: ServerState
    clickhouse: ServerState
    dead_letters: ServerState
    group: GroupState
    families: tuple[FamilyState, ...]
    tables: tuple[TableState, ...]
    storage: StorageState
    backup: BackupState
    rollup: RollupState | None
    retention_seconds: Mapping[str, float]
    """Retention by family."""
    clock_seconds: float | None
    """ClickHouse's clock minus this machine's."""
    unstored_seconds: Mapping[str, float]
    """Time for which records have been consumed and no rows stored, by table."""
    flapping: Mapping[str, int]
    """Hosts whose workers join again and again, and how often they did within a quarter of an hour."""
    halts: Mapping[str, str]
    """Why workers have halted lately, by address."""
    snapshot_seconds: float
    """Time between two snapshots of the rollup, as workers have it."""
    reject_ratio: float
    """Share of rejected records above which workers aren't ready."""


def find_troubles(facts: Facts) -> Iterator[Found]:
    """Yield the troubles of the model."""
    yield from _servers(facts)
    yield from _halts(facts.halts)
    if facts.kafka.verdict is Health.OK:
        yield from _group(facts)
        for family in facts.families:
            yield from _family(family, facts)
    for family in facts.families:
        yield from _letters(family)
    if facts.clickhouse.verdict is Health.OK:
        yield from _tables(facts)
        yield from _storage(facts)
        yield from _backup(facts.backup)
    if facts.kafka.verdict is Health.OK and facts.rollup is not None:
        yield from _rollup(facts, facts.rollup)


def _servers(facts: Facts) -> Iterator[Found]:
    if facts.kafka.verdict is _CRITICAL:
        said = facts.kafka.reason or "no answer"
        yield Found("kafka-away", _CRITICAL, "Kafka", said, "Bring Kafka back; workers go on where they were.")
    elif facts.dead_letters.verdict is _CRITICAL:
        said = facts.dead_letters.reason or "no answer"
        action = "Check that the monitor may read the dead-letter topics."
        yield Found("dead-letters-unread", _WARNING, "dead letters", said, action)
    if facts.clickhouse.verdict is _CRITICAL:
        said = facts.clickhouse.reason or "no answer"
        action = (
            "Bring ClickHouse back; workers repeat their inserts, and nothing is lost until Kafka's retention ends."
        )
        yield Found("clickhouse-away", _CRITICAL, "ClickHouse", said, action)


def _halts(halts: Mapping[str, str]) -> Iterator[Found]:
    for address, why in sorted(halts.items()):
        action = "Mend what it names, then start it again; going on by itself would do harm."
        yield Found("worker-halted", _CRITICAL, f"worker at {address}", f"it has halted: {why}", action)


def _group(facts: Facts) -> Iterator[Found]:
    if not facts.group.members:
        waiting = sum(family.lag_records or 0 for family in facts.families)
        severity = _CRITICAL if waiting else _WARNING
        text = f"no worker runs; {waiting:,} records wait" if waiting else "no worker runs; nothing waits"
        yield Found("no-worker", severity, f"group {facts.group.id}", text, "Start a worker.")
    for host, joins in facts.flapping.items():
        text = f"it has joined the group {joins} times in a quarter of an hour"
        action = "Read its last log lines; each start and each end makes the group share its partitions out anew."
        yield Found("flapping", _WARNING, f"worker at {host}", text, action)


def _family(family: FamilyState, facts: Facts) -> Iterator[Found]:
    if family.missing:
        action = "Create it with `chimera topics apply`."
        yield Found("topic-missing", _CRITICAL, family.name, f"Kafka has no topic {family.topic}", action)
        return
    if family.leaderless:
        more = ", …" if family.leaderless[_NAMED:] else ""
        numbers = ", ".join(map(str, family.leaderless[:_NAMED])) + more
        text = f"{len(family.leaderless)} of {len(family.partitions)} partitions have no leader: {numbers}"
        action = "Bring their broker back; until then, nobody writes to them or reads from them."
        yield Found("partition-without-leader", _CRITICAL, family.name, text, action)
    if facts.group.members and family.unowned and family.lag_records:
        text = f"{family.unowned} of {len(family.partitions)} partitions have no worker"
        action = "Wait for the rebalance; then look at the workers' logs."
        yield Found("partition-without-worker", _CRITICAL, family.name, text, action)
    stalled = [part for part in family.partitions if part.consumption is Consumption.STALLED]
    if stalled:
        waiting = sum(part.lag_records or 0 for part in stalled)
        text = f"{len(stalled)} partitions don't move; {waiting:,} records wait"
        yield Found("stalled", _CRITICAL, family.name, text, "Look at the workers' reason: on the page, or at /ready.")
    if family.consumption is Consumption.WARNING:
        text = f"the lag grows: {family.lag_records or 0:,} records"
        yield Found("falling-behind", _WARNING, family.name, text, "Start more workers, or wait for the peak to end.")
    if (family.rejected_ratio or 0) > facts.reject_ratio:
        text = f"{family.rejected_ratio:.0%} of the records become dead letters; workers aren't ready"
        action = f"Look at them with `chimera dlq show --topic {family.name} --limit 5`; stop their producer."
        yield Found("rejects", _CRITICAL, family.name, text, action)
    if family.lost_records:
        text = f"retention deleted {family.lost_records:,} records before they were consumed"
        yield Found(
            "records-lost", _CRITICAL, family.name, text, "Raise the retention; fill the table from another copy."
        )
    yield from _retention(family, facts.retention_seconds.get(family.name, 0))


def _retention(family: FamilyState, retention: float) -> Iterator[Found]:
    left = family.retention_left_seconds
    if left is None or not retention or left > RETENTION_NEAR * retention:
        return
    severity = _CRITICAL if left <= RETENTION_AT_ONCE * retention else _WARNING
    text = f"Kafka deletes unconsumed records in {duration(max(0, left))}"
    yield Found(
        "retention-near", severity, family.name, text, "Raise the topic's retention now, then let workers catch up."
    )


def _letters(family: FamilyState) -> Iterator[Found]:
    letters = family.dead_letters
    old = letters.oldest_seconds is not None and letters.oldest_seconds > LETTERS_OLD_SECONDS
    if letters.unsettled and (old or letters.unsettled >= LETTERS_MANY):
        reasons = sorted(letters.reasons.items(), key=lambda each: -each[1])
        most = ", ".join(f"{count:,} {reason}" for reason, count in reasons[:3])
        text = f"{letters.unsettled:,} dead letters wait for a person: {most}"
        action = f"Look at them with `chimera dlq show --topic {family.name}`, then requeue or drop them."
        yield Found("dead-letters", _WARNING, family.name, text, action)


def _tables(facts: Facts) -> Iterator[Found]:
    families = {family.table: family for family in facts.families}
    for table in facts.tables:
        if table.missing:
            text, action = f"ClickHouse has no table {table.name}", "Create it with `chimera migrate`."
            yield Found("table-missing", _CRITICAL, table.name, text, action)
        if (table.most_parts or 0) >= PARTS_MANY:
            severity = _CRITICAL if (table.most_parts or 0) >= PARTS_TOO_MANY else _WARNING
            text = f"a day has {table.most_parts:,} parts"
            yield Found("many-parts", severity, table.name, text, "Look at merges and disk; make micro-batches larger.")
        family = families.get(table.name)
        unstored = not table.missing and facts.unstored_seconds.get(table.name, 0) > STORED_SECONDS
        if family and unstored and (family.consumed_per_second or 0) > 0:
            text = f"records are consumed, but {table.name} has got no rows for {STORED_SECONDS:.0f} s"
            yield Found("nothing-stored", _CRITICAL, family.name, text, "Look at the dead letters and their reasons.")


def _storage(facts: Facts) -> Iterator[Found]:
    for disk in facts.storage.disks:
        share = disk.free_bytes / disk.total_bytes if disk.total_bytes else 1
        if share < DISK_LOW:
            severity = _CRITICAL if share < DISK_FULL else _WARNING
            text = f"{share:.0%} of disk {disk.name} is free"
            yield Found(
                "disk-full", severity, "ClickHouse", text, "Free space, or add a disk; inserts fail when it is full."
            )
    if facts.clock_seconds is not None and abs(facts.clock_seconds) > CLOCK_SECONDS:
        text = f"its clock differs from the monitor's by {facts.clock_seconds:+.0f} s"
        yield Found("clocks-differ", _WARNING, "ClickHouse", text, "Synchronise both machines' clocks.")


def _backup(backup: BackupState) -> Iterator[Found]:
    if backup.reason is not None:
        action = "Give the monitor's role its rights anew: `chimera access sql`."
        yield Found("backup-unread", _WARNING, "backup", backup.reason, action)
    if backup.last_failed:
        action = "Read its error with `chimera backup list`, mend it, and make one: `chimera backup create`."
        yield Found("backup-failed", _WARNING, "backup", "the last attempt has failed", action)
    if backup.too_old and backup.age_seconds is not None:
        text = f"the last backup began {duration(backup.age_seconds)} ago"
        yield Found("backup-too-old", _WARNING, "backup", text, "Look whether its timer runs: docs/backup.md.")


def _rollup(facts: Facts, rollup: RollupState) -> Iterator[Found]:
    waited = rollup.unsaved_seconds or 0
    if facts.group.members and waited > max(SNAPSHOT_SECONDS, SNAPSHOTS * facts.snapshot_seconds):
        text = f"consumed records have been without a snapshot for {duration(waited)}"
        yield Found("rollup-behind", _WARNING, "session_stats", text, "Look for `chimera.rollup` in the workers' logs.")


class Begins:
    """Memory of when each trouble began."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, str], datetime] = {}

    def dated(self, found: Iterable[Found], now: float) -> tuple[Trouble, ...]:
        """Give each trouble its begin; the worst and oldest first. Troubles that are over are forgotten."""
        at = datetime.fromtimestamp(now, UTC)
        rows = {(each.id, each.where): each for each in found}
        self._since = {key: self._since.get(key, at) for key in rows}
        troubles = (
            Trouble(each.id, each.severity, each.where, each.text, each.action, self._since[key])
            for key, each in rows.items()
        )
        return tuple(sorted(troubles, key=lambda each: (each.severity is not _CRITICAL, each.since)))


def duration(seconds: float) -> str:
    """Format a duration for people: 45 s, 12 min, 3 h 5 min, 2 days 3 h."""
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if days:
        return f"{days} day{'s' if days > 1 else ''} {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{seconds:.0f} s"
