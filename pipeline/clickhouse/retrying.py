"""Retries of steps that may fail for ClickHouse: the kind of a failure, and what operators read of it."""

from functools import partial

from pipeline.clickhouse.client import cause_of, is_unclear, kind_of, label_of
from pipeline.config import ClickHouseSettings, WorkerSettings
from pipeline.retry import Renew, Retry
from pipeline.troubles import Troubles


def retry_of(
    name: str, renew: Renew, worker: WorkerSettings, clickhouse: ClickHouseSettings, troubles: Troubles | None = None
) -> Retry:
    """Return a runner of steps that insert into ClickHouse, look rows up, or prepare that.

    Args:
        name: family or table, for metrics and troubles.
        renew: commits the state of a partition again.
        worker: length of the lease, and pauses between attempts.
        clickhouse: server, for the causes of failures.
        troubles: told of failed attempts.
    """
    return Retry(
        name,
        renew,
        worker,
        kind_of=kind_of,
        describe=partial(cause_of, settings=clickhouse),
        label=label_of,
        troubles=troubles,
        is_unclear=is_unclear,
    )
