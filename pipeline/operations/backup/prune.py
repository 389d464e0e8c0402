"""Remove old backups, and never one that a kept backup builds on.

ClickHouse has no statement that removes a backup. So its files are removed here if the disk is a folder of this
machine, or by a command of the user's.
"""

import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.lookups import all_rows
from pipeline.config import Settings
from pipeline.errors import HaltError
from pipeline.operations.backup.destination import Destination
from pipeline.operations.backup.manifest import BackupRecord, Manifest, chain_of

_PATH = "SELECT path, type FROM system.disks WHERE name = %(disk)s"


@dataclass(frozen=True, slots=True)
class Pruning:
    """Backups by what becomes of them.

    Args:
        removed: backups whose files go, the newest first, so that no chain is ever without its base.
        needed: old ones that are kept, because a kept one builds on them.
        kept: all others.
    """

    removed: tuple[BackupRecord, ...]
    needed: tuple[BackupRecord, ...]
    kept: tuple[BackupRecord, ...]


def plan_pruning(records: Sequence[BackupRecord], keep_days: float, now: datetime | None = None) -> Pruning:
    """Return what becomes of each backup; the newest whole one is always kept.

    Args:
        records: all backups, the oldest first.
        keep_days: age in days up to which backups are kept; failed ones are kept for a day.
        now: time from which ages are counted.
    """
    now = now or datetime.now(UTC)
    there = [record for record in records if record.state != "pruned"]
    whole = [record.name for record in there if record.state == "ok" and record.whole]
    kept = {
        record.name
        for record in there
        if record.state == "running"
        or record.name in whole[-1:]
        or now - record.began_at <= timedelta(days=min(keep_days, 1) if record.state == "failed" else keep_days)
    }
    needed = {each for name in kept for each in chain_of(name, records)} - kept
    return Pruning(
        tuple(record for record in reversed(there) if record.name not in kept | needed),
        tuple(record for record in there if record.name in needed),
        tuple(record for record in there if record.name in kept),
    )


def remove(settings: Settings, record: BackupRecord) -> str:
    """Remove a backup's files, and note it; return a command to run instead, if they are out of reach.

    Raises:
        UnavailableError: ClickHouse doesn't answer.
        HaltError: ClickHouse refuses, or the configured command fails.
    """
    destination = Destination(record.place)
    if settings.backup.remove_command:
        _run([word.replace("{name}", record.name) for word in shlex.split(settings.backup.remove_command)])
    else:
        folder = _folder(settings, destination)
        if folder is None:
            return _command(destination, record.name)
        try:
            if (folder / record.name).exists():
                shutil.rmtree(folder / record.name)
        except PermissionError:  # the server's user owns them
            return _command(destination, record.name)
        except OSError as error:
            raise HaltError(
                f"{error.filename or folder / record.name}: {error.strerror}; the backup stays in the list"
            ) from None
    Manifest(settings.clickhouse).add(record.name, "pruned", {"pruned_at": datetime.now(UTC).isoformat()})
    return ""


def _folder(settings: Settings, destination: Destination) -> Path | None:
    """Return the folder of a disk; None if it isn't one of this machine that this user may change."""
    if not destination.disk:
        return None
    with explained(settings.clickhouse), connect(settings.clickhouse, database="") as client:
        found = all_rows(client, _PATH, {"disk": destination.disk})
    folder = Path(found[0][0]) if found and found[0][1] == "Local" else None
    try:
        return folder if folder and folder.is_dir() and any(folder.iterdir()) else None
    except OSError:
        return None


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    except OSError as error:
        raise HaltError(f"{shlex.join(command)}: {error.strerror}; the backup stays in the list") from None
    if done.returncode:
        reason = " ".join(done.stderr.split())
        raise HaltError(f"{shlex.join(command)}: exit code {done.returncode}: {reason}; the backup stays in the list")


def _command(destination: Destination, name: str) -> str:
    if destination.disk:
        return f"clickhouse-disks --disk {destination.disk} --query 'remove --recursive {name}'"
    return f"aws s3 rm --recursive s3://…/{name}  # {destination.folder}/{name}"
