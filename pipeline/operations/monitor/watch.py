"""The looks at the servers, each in a thread of its own and with a timeout, and the model that is made of them.

A look that fails is a state of the model. A look that hangs holds up no other one.
"""

import threading
import time
from collections.abc import Callable, Iterable

import structlog

from pipeline.catalog import Catalog, Family
from pipeline.clickhouse.observing import StorageObserver
from pipeline.clickhouse.session_stats import TABLE
from pipeline.config import Settings
from pipeline.errors import ChimeraError
from pipeline.kafka.standing import GroupObserver, RecordTimes, Standing
from pipeline.operations.monitor.backups import BackupWatch
from pipeline.operations.monitor.journal import Journal, LastHour
from pipeline.operations.monitor.logs import WrittenLogs
from pipeline.operations.monitor.looks import Looks
from pipeline.operations.monitor.partitions import PartitionWatch, group_state
from pipeline.operations.monitor.rejects import RejectShares, Totals
from pipeline.operations.monitor.server_watch import ServerWatch, moment
from pipeline.operations.monitor.state import VERSION, Event, FamilyState, Health, History, PipelineState, Trouble
from pipeline.operations.monitor.tables import TableHistory
from pipeline.operations.monitor.troubles import Begins, Facts, find_troubles
from pipeline.operations.monitor.workers import WorkerWatch

_TOPICS_SECONDS = 9.0
"""Least time between two questions for the topics' partitions: at every second look, as often as workers ask."""

_WORKER_SECONDS = 2.0
"""Longest wait for a worker's answer, so that one that is silent doesn't delay the others' for long."""

log = structlog.get_logger("chimera.monitor")


class Watch:
    """Looks at the pipeline, and gives its state.

    Args:
        settings: both servers, the group, and the monitor's own.
        catalog: the families and the rollup.
        clock: seconds since 1970.
    """

    def __init__(self, settings: Settings, catalog: Catalog, *, clock: Callable[[], float] = time.time) -> None:
        wait, interval = settings.monitor.answer_seconds, settings.monitor.interval_seconds
        self._settings, self._catalog, self._clock = settings, catalog, clock
        self._started_at = clock()
        self._logs = WrittenLogs(settings.kafka, catalog, answer_seconds=wait)
        sources = [family.topic.name for family in catalog.families]
        self._group = GroupObserver(settings.kafka, [*sources, *self._logs.topics], answer_seconds=wait)
        self._times = RecordTimes(settings.kafka, answer_seconds=wait)
        self._storage = StorageObserver(settings.clickhouse, answer_seconds=wait)
        self._backups = BackupWatch(
            settings.clickhouse, answer_seconds=wait, old_seconds=settings.monitor.backup_old_seconds
        )
        silence = 2 * interval + 4 * wait
        self._kafka = ServerWatch(settings.kafka.bootstrap_servers, silence)
        self._clickhouse = ServerWatch(settings.clickhouse.address, silence)
        self._letters = ServerWatch(settings.kafka.bootstrap_servers, 60 * silence)  # the first reading may be long
        self._workers = WorkerWatch(settings.monitor.workers, answer_seconds=min(wait, _WORKER_SECONDS))
        self._partitions = PartitionWatch(catalog.families)
        tables = [*(family.table for family in catalog.families), *([TABLE] if catalog.rollup else [])]
        self._tables = TableHistory(tables)
        self._journal, self._hour, self._begins = Journal(), LastHour(), Begins()
        self._standing: Standing | None = None
        self._clock_seconds: float | None = None
        self._topics_at = 0.0
        self._lock = threading.Lock()
        worker = settings.worker
        self._rejects = RejectShares(worker.reject_window_seconds, worker.reject_minimum)
        looks = (self.look_at_kafka, self.look_at_clickhouse, self.look_at_logs, self.look_at_backups)
        self._looks = Looks((*looks, self.look_at_workers), settings.monitor.interval_seconds)

    def start(self) -> None:
        """Begin to look, in threads that end with `stop`."""
        self._looks.start()

    def stop(self, seconds: float) -> None:
        """Stop looking; a look under way has this time to end."""
        self._looks.stop(seconds)

    def look_once(self) -> None:
        """Make each look once, those at different servers at the same time."""
        beside = threading.Thread(target=self._look_beside_kafka, daemon=True)
        beside.start()
        self.look_at_kafka()
        self.look_at_workers()
        self.look_at_logs()
        beside.join()

    def _look_beside_kafka(self) -> None:
        self.look_at_clickhouse()
        self.look_at_backups()

    def look_at_kafka(self) -> None:
        """Look at the group and the topics."""
        try:
            began = self._clock()
            anew = began - self._topics_at > _TOPICS_SECONDS
            standing = self._group.look(anew=anew)
        except ChimeraError as error:
            self._note_failure(self._kafka, "Kafka", str(error))
            return
        now = self._clock()
        self._topics_at = began if anew else self._topics_at
        with self._lock:
            self._partitions.add(now, standing)
            self._standing = standing
            for family in self._catalog.families:
                self._tables.consumed(now, family.table, self._partitions.consumed(family))
            asked = self._partitions.unknown()
        times = self._times.read(asked)
        with self._lock:
            self._partitions.learn(asked, times)
            self._journal.compare(now, standing)
        self._note_success(self._kafka, "Kafka")
        with self._lock:
            self._hour.add(now, self._families(now))
            self._compose(now)  # notes when a trouble begins, also if nobody asks

    def look_at_clickhouse(self) -> None:
        """Look at the tables and the server."""
        try:
            began = self._clock()
            facts = self._storage.look(self._tables.names)
        except ChimeraError as error:
            self._note_failure(self._clickhouse, "ClickHouse", str(error))
            return
        now = self._clock()
        self._clock_seconds = facts.time_ms / 1000 - (began + now) / 2 if now - began < 1 else self._clock_seconds
        with self._lock:
            self._tables.add(now, facts)
        self._note_success(self._clickhouse, "ClickHouse")

    def look_at_logs(self) -> None:
        """Read what is new of the dead letters and the rollup's snapshots."""
        standing = self._standing
        if standing is None or self._kafka.state(self._clock()).verdict is not Health.OK:
            return
        try:
            self._logs.look(standing)
        except ChimeraError as error:
            self._letters.failed(self._clock(), str(error))
            return
        now = self._clock()
        self._letters.succeeded(now)
        self._logs.compare(standing, now)
        with self._lock:
            self._rejects.add(now, {family.name: self._totals(family) for family in self._catalog.families})

    def _totals(self, family: Family) -> Totals:
        return Totals(self._partitions.consumed(family), self._logs.come(family.dead_letters.name))

    def look_at_backups(self) -> None:
        """Read what the manifest says about the newest backup, once a minute."""
        now = self._clock()
        if self._clickhouse.state(now).verdict is Health.OK:
            self._backups.look(now)

    def look_at_workers(self) -> None:
        """Ask the workers of the last look at the group, also while Kafka is away."""
        now, standing = self._clock(), self._standing
        halts = self._workers.look(now, standing.members if standing else ())
        with self._lock:
            for text in halts:
                self._journal.note(now, "halt", text)

    def state(self) -> PipelineState:
        """Return the model as of now."""
        now = self._clock()
        with self._lock:
            return self._compose(now)

    def _compose(self, now: float) -> PipelineState:
        facts = self._facts(now)
        troubles = self._begins.dated(find_troubles(facts), now)
        if facts.kafka.verdict is facts.clickhouse.verdict is Health.OK:  # else troubles are hidden, not over
            self._journal.compare_troubles(now, troubles)
        return _state_of(
            facts,
            troubles,
            started_at=self._started_at,
            events=self._journal.events,
            history=self._hour.history(family.name for family in self._catalog.families),
        )

    def _facts(self, now: float) -> Facts:
        return Facts(
            now=now,
            kafka=self._kafka.state(now),
            clickhouse=self._clickhouse.state(now),
            dead_letters=self._letters.state(now),
            group=group_state(self._settings.kafka.group_id, self._standing, self._workers.words),
            families=self._families(now),
            tables=self._tables.tables(now),
            storage=self._tables.storage(),
            backup=self._backups.state(now),
            rollup=self._logs.rollup(self._tables.newest_event(TABLE), now),
            retention_seconds={family.name: family.topic.retention_hours * 3600 for family in self._catalog.families},
            clock_seconds=self._clock_seconds,
            unstored_seconds=self._tables.unstored_seconds(now),
            flapping=self._journal.flapping(now),
            halts=self._workers.halts(),
            snapshot_seconds=self._settings.rollup.snapshot_seconds,
            reject_ratio=self._settings.worker.reject_ratio,
        )

    def _families(self, now: float) -> tuple[FamilyState, ...]:
        return tuple(
            self._partitions.family(
                family, self._logs.dead_letters(family.dead_letters.name, now), self._rejects.share(family.name), now
            )
            for family in self._catalog.families
        )

    def _note_failure(self, server: ServerWatch, name: str, reason: str) -> None:
        now = self._clock()
        if server.state(now).verdict is not Health.CRITICAL:
            log.warning("look failed", server=name, reason=reason)
            with self._lock:
                self._journal.note(now, "away", f"{name} doesn't answer")
        server.failed(now, reason)

    def _note_success(self, server: ServerWatch, name: str) -> None:
        now = self._clock()
        if server.state(now).verdict is Health.CRITICAL:
            log.info("look succeeds again", server=name)
            with self._lock:
                self._journal.note(now, "back", f"{name} answers again")
        server.succeeded(now)


def _state_of(
    facts: Facts, troubles: tuple[Trouble, ...], *, started_at: float, events: tuple[Event, ...], history: History
) -> PipelineState:
    verdict = _verdict(troubles, (facts.kafka.verdict, facts.clickhouse.verdict))
    at, started = moment(facts.now), moment(started_at)
    assert at is not None
    assert started is not None
    return PipelineState(
        version=VERSION,
        at=at,
        started_at=started,
        verdict=verdict,
        summary=_summary(verdict, troubles),
        kafka=facts.kafka,
        clickhouse=facts.clickhouse,
        dead_letters=facts.dead_letters,
        group=facts.group,
        families=facts.families,
        tables=facts.tables,
        rollup=facts.rollup,
        storage=facts.storage,
        backup=facts.backup,
        troubles=troubles,
        events=events,
        history=history,
    )


def _verdict(troubles: Iterable[Trouble], servers: Iterable[Health]) -> Health:
    severities = {trouble.severity for trouble in troubles}
    if Health.CRITICAL in severities:
        return Health.CRITICAL
    if Health.UNKNOWN in servers:
        return Health.UNKNOWN
    return Health.WARNING if severities else Health.OK


def _summary(verdict: Health, troubles: tuple[Trouble, ...]) -> str:
    if verdict is Health.UNKNOWN:
        return "Looking for the first time"
    if not troubles:
        return "All is well"
    more = f", and {len(troubles) - 1} more" if troubles[1:] else ""
    worst = troubles[0]
    where = "" if worst.text.startswith(worst.where) else f"{worst.where}: "
    return f"{where}{worst.text.removesuffix('.')}{more}"
