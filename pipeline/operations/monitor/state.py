"""State of the pipeline at one time: the one model behind the metrics, the page, /status.json and the commands.

`docs/status.schema.json` is made of these classes. Durations are in seconds, times aware UTC. None stands for unknown,
never for zero.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

VERSION = 1
"""Version of the model; it rises when a field goes or changes its meaning."""


class Health(enum.StrEnum):
    """Summary of the pipeline's state, or severity of a trouble."""

    OK = "ok"
    WARNING = "warning"
    CRITICAL = "critical"
    UNKNOWN = "unknown"
    """Not looked at yet."""


class Consumption(enum.StrEnum):
    """Consumption of a partition, as Burrow judges it: by a window of commits, without thresholds."""

    OK = "ok"
    WARNING = "warning"
    """Its commit moves, but its lag never shrinks, and has grown over the last looks."""
    STALLED = "stalled"
    """A worker owns it, and its commit doesn't move."""
    STOPPED = "stopped"
    """No worker owns it, and its commit doesn't move."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ServerState:
    """Kafka or ClickHouse, or a part of what is read from it."""

    verdict: Health
    address: str
    since: datetime | None
    """Begin of this verdict."""
    looked_at: datetime | None
    """Time of the last look that succeeded."""
    reason: str | None
    """Failure of the last look."""


@dataclass(frozen=True, slots=True)
class PartitionState:
    """One partition of a family's topic."""

    partition: int
    begin: int | None
    """Offset of the first record that the broker still has."""
    end: int | None
    """Offset behind the last record."""
    committed: int | None
    """Offset that the group has committed; None without a commit."""
    lag_records: int | None
    lag_seconds: float | None
    """Age of the first record that isn't consumed; 0 without lag."""
    consumption: Consumption
    owner: str | None
    """Member that has the partition."""
    lost_records: int
    """Records between the commit and the log's beginning: retention deleted them before they were consumed."""
    retention_left_seconds: float | None
    """Time until retention may delete the first record that isn't consumed; None without lag."""


@dataclass(frozen=True, slots=True)
class UnsettledLetters:
    """Dead letters of a family that are neither requeued nor dropped."""

    topic: str
    unsettled: int | None
    """None until the topic has been read once."""
    reasons: Mapping[str, int]
    oldest_seconds: float | None
    """Age of the oldest one."""
    unread: int
    """Records that are still to be read."""


@dataclass(frozen=True, slots=True)
class FamilyState:
    """One family: its topic, its partitions and its dead letters."""

    name: str
    topic: str
    table: str
    missing: bool
    """True if Kafka doesn't have the topic."""
    produced_per_second: float | None
    consumed_per_second: float | None
    rejected_ratio: float | None
    """Share, from 0 to 1, of the records consumed in CHIMERA_WORKER__REJECT_WINDOW_SECONDS that became dead letters.

    None with fewer records than CHIMERA_WORKER__REJECT_MINIMUM.
    """
    lag_records: int | None
    lag_seconds: float | None
    """The greatest of the partitions."""
    consumption: Consumption
    """The worst of the partitions."""
    uncommitted: int
    """Partitions with records and without a commit; all their records are lag."""
    unowned: int
    """Partitions that no member has."""
    leaderless: tuple[int, ...]
    """Partitions that no broker leads, or whose leader doesn't answer; nothing else is known of them."""
    lost_records: int
    retention_left_seconds: float | None
    """The least of the partitions."""
    partitions: tuple[PartitionState, ...]
    dead_letters: UnsettledLetters


@dataclass(frozen=True, slots=True)
class MemberState:
    """A member of the consumer group: a worker."""

    id: str
    client: str
    host: str
    partitions: int
    ready: bool | None = None
    """Answer of its `/ready`; None if the monitor can't ask it."""
    says: str = ""
    """Reason why it isn't ready."""


@dataclass(frozen=True, slots=True)
class GroupState:
    """The consumer group of the workers."""

    id: str
    state: str
    """In Kafka's words, in lower case; "unknown" while Kafka is away."""
    members: tuple[MemberState, ...]


@dataclass(frozen=True, slots=True)
class TableState:
    """One table."""

    name: str
    missing: bool
    rows: int | None
    rows_last_hour: int | None
    """Rows that came in the last hour of watching; negative if rows were deleted."""
    watched_seconds: float
    """Time over which `rows_last_hour` was counted; an hour at most."""
    newest_event: datetime | None
    """Greatest time of an event, to the second."""
    newest_stored: datetime | None
    """Time of the last insert, to the second; before the monitor has seen one, a time after it."""
    bytes_on_disk: int | None
    parts: int | None
    most_parts: int | None
    """Parts of the partition (day) with the most."""


@dataclass(frozen=True, slots=True)
class RollupState:
    """The rollup, by the snapshots that workers write."""

    open_windows: int | None
    waiting_events: int | None
    watermark: datetime | None
    """The least of the partitions' watermarks."""
    newest_hour: datetime | None
    """Greatest hour in session_stats."""
    snapshot_at: datetime | None
    """Time of the newest snapshot; without new records there is no new one."""
    unsaved_seconds: float | None
    """Time for which consumed records of ui_events have waited for a snapshot; 0 without any."""


@dataclass(frozen=True, slots=True)
class DiskState:
    """A disk of ClickHouse."""

    name: str
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class StorageState:
    """ClickHouse as a whole."""

    version: str | None
    uptime_seconds: int | None
    merges: int | None
    disks: tuple[DiskState, ...]
    errors: Mapping[str, int]
    """Errors since the monitor's start, by ClickHouse's name; those of all its users."""
    errors_since_look: int
    """Errors between the last two looks."""


@dataclass(frozen=True, slots=True)
class BackupState:
    """The newest backup, by the manifest of `chimera backup`."""

    verdict: Health
    """Unknown without a backup, and before the first look."""
    at: datetime | None
    """Time at which the newest whole backup began; None without one."""
    name: str
    """Its name; empty without one."""
    age_seconds: float | None
    too_old: bool | None
    """True if the age is over CHIMERA_MONITOR__BACKUP_OLD_SECONDS; None without a backup."""
    last_failed: bool | None
    """True if the last attempt that ended has failed; None before the first look."""
    verified_at: datetime | None
    """Time of the last verification that found no difference."""
    looked_at: datetime | None
    """Time of the last look that got an answer."""
    reason: str | None
    """Refusal of the last look."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something that a person should know, and a way out."""

    id: str
    """Name of its section in docs/runbook.md."""
    severity: Health
    where: str
    text: str
    action: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened."""

    at: datetime
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class History:
    """The last hour, in steps; the newest last. None stands for a step that wasn't watched."""

    step_seconds: float
    consumed_per_second: Mapping[str, tuple[float | None, ...]]
    """By family."""
    lag_records: Mapping[str, tuple[float | None, ...]]
    """By family."""


@dataclass(frozen=True, slots=True)
class PipelineState:
    """The model."""

    version: int
    at: datetime
    started_at: datetime
    verdict: Health
    summary: str
    kafka: ServerState
    clickhouse: ServerState
    dead_letters: ServerState
    """Reading of the dead letters and of the rollup's snapshots."""
    group: GroupState
    families: tuple[FamilyState, ...]
    tables: tuple[TableState, ...]
    rollup: RollupState | None
    """None without a rollup."""
    storage: StorageState
    backup: BackupState
    troubles: tuple[Trouble, ...]
    """The worst first."""
    events: tuple[Event, ...]
    """The newest first."""
    history: History
