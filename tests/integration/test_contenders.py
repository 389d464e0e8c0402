"""The benchmark on real servers: each contender stores the same topic, the worst events are seen, nothing is left."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from support.processes import eventually

from benchmarks.cases import SAMPLE, Workloads
from benchmarks.contenders import ENGINE, PEERS, WORKER, YARDSTICK, Contender
from benchmarks.latency import LatencyPart, Pace
from benchmarks.measure import Bench, rounds
from benchmarks.process import ContenderError
from benchmarks.runtimes import MissingGoError, command
from benchmarks.stage import Stage, stage
from benchmarks.workload import Workload, publish
from pipeline.devstack.ports import HOST

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
EVENTS = 3_000
# A program that is compiled in two thirds of the CPU time; the benchmark has its own, which is optimised.
_QUICK_BUILD = "'-gcflags=all=-N -l -dwarf=false' -ldflags=-w"


@pytest.fixture(scope="module")
def place() -> Iterator[Stage]:
    with stage() as found:
        yield found


@pytest.fixture(scope="module")
def workload(place: Stage) -> Workload:
    return Workloads(place).get(SAMPLE, EVENTS)


@pytest.mark.parametrize("contender", [WORKER, YARDSTICK, PEERS[1], ENGINE], ids=lambda each: each.name)
def test_a_contender_stores_every_event_of_the_one_topic(
    contender: Contender, place: Stage, workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts and sums of its table are those of the published events, and the topic is as it was."""
    monkeypatch.setenv("GOFLAGS", _QUICK_BUILD)
    try:
        command(contender)
    except MissingGoError as error:
        pytest.skip(str(error))
    bench = Bench(place, workload)
    result = bench.run(contender, lambda _: None)
    assert result.rows == EVENTS
    assert result.total_seconds >= result.seconds > 0
    assert bench.environment("g")["BENCH_TOPIC"] == workload.topic
    workload.check_topic()


def test_another_count_is_a_failure_that_does_not_end_the_rounds(place: Stage, workload: Workload) -> None:
    """The contender is left out of the results, and the failure says what it stored."""
    fewer = replace(workload, fingerprint=replace(workload.fingerprint, ts_sum=1))
    benches = {"wrong": (Bench(place, fewer), PEERS[1]), "right": (Bench(place, workload), PEERS[1])}
    found = rounds(benches, 1)
    (failure,) = place.failures
    place.failures.clear()
    assert found.keys() == {"right"}
    assert failure.startswith("wrong, 3,000 events")
    assert f"stored Fingerprint(rows={EVENTS}" in failure


def test_a_topic_with_other_records_is_refused(workload: Workload) -> None:
    """All contenders must read the same records."""
    with pytest.raises(ContenderError, match=r"expected id .* and 2,999 records"):
        replace(workload, records=EVENTS - 1).check_topic()
    with pytest.raises(ContenderError, match="expected id other"):
        replace(workload, topic_id="other").check_topic()


def test_the_usual_web_port_may_be_taken(place: Stage, workload: Workload) -> None:
    """Each worker gets a free port for its web server."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((HOST, 6066))
        taken.listen()
        assert Bench(place, workload).run(WORKER, lambda _: None).rows == EVENTS


def test_the_latency_is_that_of_all_events(place: Stage) -> None:
    """Rows wait for the linger; the rate is kept; inserts are counted."""
    found = LatencyPart(place, 10.0, 4.0, EVENTS).run(Pace(500, 1.0))  # a stall at either end is a small part of it
    assert 0 < found.p50_ms <= found.p99_ms <= found.max_ms
    assert found.max_ms > 500
    assert found.kept == pytest.approx(1.0, abs=0.1)
    assert found.cores > 0
    assert found.parts_per_minute > 0


def test_a_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    """Servers, contenders and files are gone, and the exit code says so."""
    runs = [f"--events={EVENTS}", "--repeat=100"]  # so one of them is under way, whenever it is interrupted
    arguments = [sys.executable, "-m", "benchmarks", "--only", PEERS[1].name, *runs]
    with subprocess.Popen(
        arguments, cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path), "NO_COLOR": "1"}, stderr=subprocess.PIPE
    ) as process:

        def contending() -> list[psutil.Process]:
            assert process.poll() is None
            if not list(tmp_path.glob(f"*/bench_{PEERS[1].name}_*.log")):
                return []
            family = psutil.Process(process.pid).children(recursive=True)
            return family if len(family) >= 5 else []  # two servers with their keepers, and the contender

        try:
            family = eventually(contending, "the contender runs")
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130
    assert said.decode().endswith("benchmarks: interrupted; servers and contenders are stopped\n")
    assert psutil.wait_procs(family, 5)[1] == []
    assert list(tmp_path.iterdir()) == []


def test_publishing_nothing_makes_an_empty_topic(place: Stage) -> None:
    """The latency begins with a topic without records."""
    assert publish(place.settings, [], lambda _: None).records == 0
