"""Send sample events through a running pipeline and count the results, for `chimera demo`."""

import time
from collections import Counter
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from threading import Event
from typing import Any

from pipeline.catalog import Catalog
from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.lookups import all_rows
from pipeline.config import Settings
from pipeline.devstack import WorkerProcess
from pipeline.kafka.producing import RecordProducer
from pipeline.producer.encode import Encoder
from pipeline.producer.producer import Producer
from pipeline.producer.sample import sample
from pipeline.rollup.audit import Audit
from pipeline.rollup.horizon import read_horizon
from pipeline.rollup.verify import Report, verify

DAMAGED = 100
"""Number of events that are cut short on purpose, so that the worker rejects them."""

_HOURS = 24.0
_POLL_SECONDS = 0.2
_STALLED_SECONDS = 60.0
_SETTLED_SECONDS = 3.0  # the worker counts closed hours once a second, and writes snapshots a little later


@dataclass(frozen=True, slots=True)
class Tally:
    """Number of produced, stored and rejected events by family, and the time since the start."""

    produced: Counter[str]
    stored: Counter[str]
    rejected: Counter[str]
    seconds: float

    @property
    def adds_up(self) -> bool:
        """True if every family has produced = stored + rejected."""
        return all(count == self.stored[name] + self.rejected[name] for name, count in self.produced.items())

    @property
    def rows_per_s(self) -> int:
        """Rows stored per second."""
        return round(self.stored.total() / self.seconds) if self.seconds else 0


def follow(settings: Settings, catalog: Catalog, worker: WorkerProcess, events: int, seed: int) -> Generator[Tally]:
    """Publish events, and yield the counts until all are stored or rejected, or nothing changes any more.

    Closing the generator stops the publishing.

    Args:
        settings: settings of the worker; the tables are empty.
        catalog: the families.
        worker: a worker that has consumed nothing yet.
        events: number of events to publish, more than `DAMAGED`; the last `DAMAGED` of them are cut short.
        seed: the same seed gives the same events at other times.

    Raises:
        UnavailableError: the worker has ended, or a server doesn't answer.
        ChimeraError: an event can't be published, or ClickHouse refuses to count rows.
    """
    produced = Counter({family.name: 0 for family in catalog.families})
    leaving = Event()
    began = changed = time.monotonic()
    done = 0
    with connect(settings.clickhouse) as client, ThreadPoolExecutor(1) as thread:
        publishing = thread.submit(_publish, settings, catalog, events, seed, produced=produced, leaving=leaving)
        try:
            while done < events and time.monotonic() - changed < _STALLED_SECONDS:
                time.sleep(_POLL_SECONDS)
                if publishing.done():
                    publishing.result()
                rejected = _rejected(worker)
                with explained(settings.clickhouse):
                    stored = Counter({family.name: _rows(client, family.table) for family in catalog.families})
                if stored.total() + rejected.total() != done:
                    done, changed = stored.total() + rejected.total(), time.monotonic()
                yield Tally(produced.copy(), stored, rejected, changed - began)
        finally:
            leaving.set()


def check_sessions(settings: Settings, catalog: Catalog, worker: WorkerProcess) -> Report:
    """Wait until every finished hour is in session_stats, and compare its rows with SQL over ui_events.

    Args:
        settings: settings of the worker, which has consumed all events and writes snapshots every second.
        catalog: the families and the rollup.
        worker: the running worker.

    Raises:
        UnavailableError: the worker has ended, or a server doesn't answer.
        ChimeraError: a server refuses.
    """
    assert catalog.rollup is not None
    report, since = Report(), time.monotonic()
    deadline = since + _STALLED_SECONDS
    with connect(settings.clickhouse) as client:
        while time.monotonic() < min(deadline, since + _SETTLED_SECONDS):
            time.sleep(_POLL_SECONDS)
            waiting = sum(worker.samples("chimera_rollup_closed_hours").values())
            horizon = read_horizon(settings, catalog.rollup)
            with explained(settings.clickhouse):
                now = verify(Audit(client, catalog.rollup.source.table), horizon)
            if waiting or (now.hours, now.rows) != (report.hours, report.rows):
                report, since = now, time.monotonic()
    return report


def _publish(
    settings: Settings, catalog: Catalog, events: int, seed: int, *, produced: Counter[str], leaving: Event
) -> None:
    """Publish sample events until `leaving` is set, the last ones damaged; count them in `produced`."""
    start = datetime.now(UTC) - timedelta(hours=_HOURS)
    sampled = sample(events, seed=seed, start=start, hours=_HOURS)
    with Producer(settings, catalog) as producer:
        for name, event in islice(sampled, events - DAMAGED):
            if leaving.is_set():
                return
            producer.send(name, event)
            produced[name] += 1
    # Our producer never sends damaged events; other programs may.
    encoders = {family.name: Encoder(family) for family in catalog.families}
    careless = RecordProducer(settings.kafka, {})
    for name, event in sampled:
        key, value = encoders[name].encode(event)
        careless.produce(catalog.family(name).topic.name, value[: len(value) // 2], key)
        produced[name] += 1
    careless.flush()


def _rejected(worker: WorkerProcess) -> Counter[str]:
    counts: Counter[str] = Counter()
    for (family_name, _reason), count in worker.samples("chimera_records_rejected_total").items():
        counts[family_name] += round(count)
    return counts


def _rows(client: Any, table: str) -> int:
    return int(all_rows(client, f"SELECT count() FROM {table}")[0][0])  # noqa: S608 (a table of topics.yaml)
