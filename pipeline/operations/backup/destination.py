"""Destinations of backups: a disk of the ClickHouse server, or an S3 bucket."""

import re
from dataclasses import dataclass

from pipeline.config import env_name
from pipeline.errors import ConfigError
from pipeline.tool_settings import BackupSettings

_DISK, _S3 = "disk:", "s3:"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True, slots=True)
class Destination:
    """A place for backups, as the server sees it.

    Args:
        place: `disk:<name of a disk>` or `s3:<URL of a folder>`; it holds no secret, so the manifest keeps it.
    """

    place: str

    @classmethod
    def configured(cls, settings: BackupSettings) -> "Destination":
        """Return the destination of new backups."""
        return cls(f"{_S3}{settings.s3_url.rstrip('/')}" if settings.s3_url else f"{_DISK}{settings.disk}")

    @property
    def disk(self) -> str | None:
        """Name of the disk; None for S3."""
        return self.place.removeprefix(_DISK) if self.place.startswith(_DISK) else None

    @property
    def folder(self) -> str:
        """URL of the folder in S3; empty for a disk."""
        return self.place.removeprefix(_S3) if self.place.startswith(_S3) else ""

    def of(self, name: str, settings: BackupSettings) -> str:
        """Return the backup of this name as BACKUP and RESTORE write it, with the keys of S3 if some are set.

        Raises:
            ConfigError: the name isn't one of a backup.
        """
        if not _NAME.fullmatch(name):
            raise ConfigError(f"backup {name!r}: expected a name of letters, digits, dots, dashes and underscores")
        if self.disk:
            return f"Disk({_quoted(self.disk)}, {_quoted(name)})"
        arguments = [f"{self.folder}/{name}"]
        if settings.s3_access_key:
            arguments += [settings.s3_access_key, settings.s3_secret_key.get_secret_value()]
        return f"S3({', '.join(map(_quoted, arguments))})"

    def needs(self) -> str:
        """Return the hint for a server that refuses the destination."""
        if self.disk:
            return (
                f"expected a disk {self.disk!r} that <backups><allowed_disk> of the server's configuration names "
                f"({env_name('backup', 'disk')}): see docs/backup.md"
            )
        return f"check {env_name('backup', 's3_url')} and its keys: see docs/backup.md"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
