"""Correctness of session_stats: every row is compared with the result of SQL over ui_events."""

import time

from clickhouse_driver import Client

from benchmarks.contenders import WORKER
from benchmarks.measure import Bench
from benchmarks.process import ContenderError
from benchmarks.rollup.workload import Shape, first_hour
from pipeline.rollup.audit import Audit
from pipeline.rollup.horizon import Horizon
from pipeline.rollup.verify import Report, verify

_POLL_SECONDS = 0.1
_STALL_SECONDS = 60.0
_EXPECTED = "SELECT uniqExact(session_id, toStartOfHour(ts)) FROM ui_events WHERE ts < toDateTime({before} * 3600)"


def compare(bench: Bench, shape: Shape) -> Report:
    """Run the worker on the workload until it has closed all hours, and compare their rows.

    Raises:
        ContenderError: the worker ended, stalled, or stored other events than the published ones.
    """
    reports: list[Report] = []
    bar = bench.place.bar("events stored", bench.workload.fingerprint.rows)
    bench.run(WORKER, bar, lambda client: reports.append(_report(bench, shape, client)))
    return reports[0]


def _report(bench: Bench, shape: Shape, client: Client) -> Report:
    before = first_hour() + shape.hours
    _await_rows(bench, before, client)
    bar = bench.place.bar("hours compared", shape.hours)
    return verify(Audit(client, "ui_events"), Horizon(before), limit=0, progress=lambda done, _: bar(done))


def _await_rows(bench: Bench, before: int, client: Client) -> None:
    ((expected,),) = client.execute(_EXPECTED.format(before=before))
    bar = bench.place.bar("rows of session_stats", expected)
    stored, grew = 0, time.monotonic()
    while stored < expected:
        was, ((stored,),) = stored, client.execute("SELECT count() FROM session_stats")
        bar(stored)
        if stored > was:
            grew = time.monotonic()
        elif time.monotonic() > grew + _STALL_SECONDS:
            raise ContenderError(
                f"session_stats has {stored:,} of {expected:,} rows and no more for {_STALL_SECONDS:.0f} s"
            )
        time.sleep(_POLL_SECONDS)
