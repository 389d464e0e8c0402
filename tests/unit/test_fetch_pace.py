"""Fetch requests: large while records flow, and answered at once for the first record after a pause."""

from types import SimpleNamespace

import pytest

from pipeline.transport.adapter.fetch_pace import FetchPace


def _paced(
    *calls: tuple[float, bool, int], lingers: tuple[float, ...] = (1.0,), max_bytes: int = 1024 * 1024
) -> tuple[int, int]:
    """Return bytes and milliseconds after calls at these seconds, with records or without, for so many partitions."""
    now, fetcher = [0.0], SimpleNamespace()
    pace = FetchPace(lingers, max_bytes, lambda: now[0])
    for at, got, partitions in calls:
        now[0] = at
        pace.set(fetcher, got_records=got, partitions=partitions)
    return fetcher._fetch_min_bytes, fetcher._fetch_max_wait_ms


@pytest.mark.parametrize(
    ("lingers", "expected"),
    [
        pytest.param((1.0, 2.0), (262_144, 100), id="a-second"),
        pytest.param((0.1,), (262_144, 25), id="a-tenth"),
        pytest.param((1e-9,), (262_144, 5), id="none"),
        pytest.param((), (1, 100), id="no-micro-batches"),
    ],
)
def test_a_fetch_waits_for_bytes_while_records_flow(lingers: tuple[float, ...], expected: tuple[int, int]) -> None:
    """It waits for a quarter of the shortest linger, 100 ms at most."""
    assert _paced((10.0, True, 8), lingers=lingers) == expected
    assert _paced((10.0, True, 8), (10.9, False, 8), lingers=lingers) == expected


@pytest.mark.parametrize(("partitions", "wait_ms"), [(0, 100), (8, 100), (250, 250), (5000, 500)])
def test_an_idle_worker_gets_the_first_record_at_once(partitions: int, wait_ms: int) -> None:
    """One byte is enough; without any, the broker waits the longer the more partitions a request names."""
    assert _paced((10.0, False, partitions)) == (1, wait_ms)
    assert _paced((10.0, True, partitions), (11.1, False, partitions)) == (1, wait_ms)


def test_a_fetch_waits_for_no_more_than_it_may_get() -> None:
    """With small answers, each fetch for one partition would last as long as the broker waits."""
    assert _paced((10.0, True, 1), max_bytes=32_768) == (32_768, 100)
