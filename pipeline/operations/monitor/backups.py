"""Age of the newest backup and the end of the last attempt, by the manifest of `chimera backup`."""

import threading

from pipeline.config import ClickHouseSettings
from pipeline.errors import ChimeraError, UnavailableError
from pipeline.operations.backup.newest import NewestBackup, newest
from pipeline.operations.monitor.server_watch import moment
from pipeline.operations.monitor.state import BackupState, Health

_BETWEEN_SECONDS = 60.0
"""Time between two looks; backups are rare."""


class BackupWatch:
    """Looks at the manifest once a minute; safe to use from several threads.

    Args:
        settings: server and database.
        answer_seconds: longest wait for an answer.
        old_seconds: age from which the newest backup is too old.
    """

    def __init__(self, settings: ClickHouseSettings, *, answer_seconds: float, old_seconds: float) -> None:
        timeouts = {"connect_timeout_seconds": answer_seconds, "query_timeout_seconds": answer_seconds}
        self._settings = settings.model_copy(update=timeouts)
        self._old_seconds = old_seconds
        self._newest: NewestBackup | None = None
        self._reason: str | None = None
        self._looked_at: float | None = None
        self._lock = threading.Lock()

    def look(self, now: float) -> None:
        """Look, unless the last look is less than a minute ago; a failure is a part of the state."""
        if self._looked_at is not None and now - self._looked_at < _BETWEEN_SECONDS:
            return
        try:
            found = newest(self._settings)
        except UnavailableError:  # that ClickHouse is away is another state; what is known stays true
            return
        except ChimeraError as error:
            with self._lock:
                self._newest, self._reason, self._looked_at = None, str(error), now
            return
        with self._lock:
            self._newest, self._reason, self._looked_at = found, None, now

    def state(self, now: float) -> BackupState:
        """Return the state at this time."""
        with self._lock:
            found, reason, looked_at = self._newest, self._reason, self._looked_at
        age = None if found is None or found.at is None else max(0.0, now - found.at.timestamp())
        if reason is not None or (found and (found.last_failed or (age or 0.0) > self._old_seconds)):
            verdict = Health.WARNING
        else:
            verdict = Health.UNKNOWN if age is None else Health.OK
        return BackupState(
            verdict=verdict,
            at=found.at if found else None,
            name=found.name if found else "",
            age_seconds=age,
            too_old=None if age is None else age > self._old_seconds,
            last_failed=found.last_failed if found else None,
            verified_at=found.verified_at if found else None,
            looked_at=moment(looked_at),
            reason=reason,
        )
