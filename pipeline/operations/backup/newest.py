"""Age of the newest backup, for monitoring."""

from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.config import ClickHouseSettings
from pipeline.operations.backup.manifest import Manifest


@dataclass(frozen=True, slots=True)
class NewestBackup:
    """The newest whole backup that is there, and the end of the last attempt.

    Args:
        at: time at which its offsets were noted, in UTC: what is older can be restored; None if there is none.
        name: its name; empty if there is none.
        last_failed: True if the last attempt of all has failed.
        verified_at: time at which a backup was last verified without a difference; None if none was.
    """

    at: datetime | None
    name: str
    last_failed: bool
    verified_at: datetime | None

    def age_seconds(self, now: datetime | None = None) -> float | None:
        """Seconds since `at`, by this machine's clock; None if there is no backup."""
        return None if self.at is None else ((now or datetime.now(UTC)) - self.at).total_seconds()


def newest(settings: ClickHouseSettings) -> NewestBackup:
    """Return what the manifest says about the newest backup; reads one small table.

    Args:
        settings: server and database; the user may SELECT from the table `chimera_backups`.

    Raises:
        UnavailableError, HaltError: ClickHouse doesn't answer, or refuses.
    """
    records = Manifest(settings).records()
    whole = [record for record in records if record.state == "ok" and record.whole]
    ended = [record for record in records if record.state != "running"]
    verified = [record.facts["verified_at"] for record in records if record.facts.get("differences") == []]
    return NewestBackup(
        at=whole[-1].began_at if whole else None,
        name=whole[-1].name if whole else "",
        last_failed=bool(ended) and ended[-1].state == "failed",
        verified_at=datetime.fromisoformat(max(verified)) if verified else None,
    )
