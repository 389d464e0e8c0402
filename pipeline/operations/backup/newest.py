"""Age of the newest backup, for monitoring."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.config import ClickHouseSettings
from pipeline.operations.backup.manifest import BackupRecord, Manifest

_AT_ONCE = 16  # facts of one backup may have 100 kB, and the first one is nearly always the one


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
    """Return what the manifest says about the newest backup; reads the facts of few backups, however many there are.

    Args:
        settings: server and database; the user may SELECT from the table `chimera_backups`.

    Raises:
        UnavailableError, HaltError: ClickHouse doesn't answer, or refuses.
    """
    manifest = Manifest(settings)
    outlines = manifest.outlines()
    ended = [each.state for each in outlines if each.state != "running"]
    whole = _last(manifest, [each.name for each in outlines if each.state == "ok"], lambda record: record.whole)
    checked = sorted((each for each in outlines if "verified" in each.events), key=lambda each: each.verified_at)
    alike = _last(manifest, [each.name for each in checked], lambda record: record.facts.get("differences") == [])
    return NewestBackup(
        at=whole.began_at if whole else None,
        name=whole.name if whole else "",
        last_failed=ended[-1:] == ["failed"],
        verified_at=datetime.fromisoformat(alike.facts["verified_at"]) if alike else None,
    )


def _last(manifest: Manifest, names: Sequence[str], wanted: Callable[[BackupRecord], bool]) -> BackupRecord | None:
    """Return the last of some backups that is wanted; None if none is."""
    for end in range(len(names), 0, -_AT_ONCE):
        some = names[max(0, end - _AT_ONCE) : end]
        found = {record.name: record for record in manifest.records(some)}
        for name in reversed(some):
            if name in found and wanted(found[name]):
                return found[name]
    return None
