"""Report of the benchmark: medians, ratios, the line of JSON, and the tables for the docs."""

import json
import shutil
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import orjson
import psutil
import pytest

from benchmarks import asked, runtimes
from benchmarks.cases import AGENTS, CASES, METADATA, SAMPLE
from benchmarks.contenders import CONTENDERS, PEERS, WORKER, YARDSTICK
from benchmarks.figures import Figures, case_cpu, json_line, ratios, rows_per_s
from benchmarks.latency import Latency, Pace, middle
from benchmarks.load import time_bytes
from benchmarks.machine import others_cpu_seconds
from benchmarks.report import BEGIN, END, markdown, replace_marked, sheets
from benchmarks.results import Result, Runs, ratio
from benchmarks.runtimes import PEER_REQUIREMENTS, MissingGoError, prepared
from benchmarks.visible import Watch
from benchmarks.workload import own_topics, usual
from pipeline.catalog import load_catalog
from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.producer.encode import Encoder


def _result(name: str, seconds: float, *, cpu: float | None = 1.5, rss: int | None = 300_000_000) -> Result:
    return Result(
        name,
        rows=300_000,
        seconds=seconds,
        total_seconds=seconds + 2.0,
        server_cpu_seconds=0.6,
        cpu_seconds=cpu,
        peak_rss_bytes=rss,
    )


def _runs(name: str, *seconds: float, cpu: float | None = 1.5, rss: int | None = 300_000_000) -> Runs:
    return Runs(tuple(_result(name, each, cpu=cpu, rss=rss) for each in seconds))


_RUNS = {
    "chimera": _runs("chimera", 2.0),
    "yardstick": _runs("yardstick", 1.0, cpu=0.75),
    "stock_faust": _runs("stock_faust", 40.0, cpu=30.0),
    "plain_loop": _runs("plain_loop", 4.0),
    "quix": _runs("quix", 10.0),
    "bytewax": _runs("bytewax", 8.0),
    "clickhouse_kafka_engine": _runs("clickhouse_kafka_engine", 4.2, cpu=None, rss=None),
}
_LATENCY = Latency(
    Pace(20_000, 1.0), 600.0, 1100.4, 1300.0, cores=0.14, server_cores=0.2, parts_per_minute=480.0,
    stats_parts_per_minute=2.0, kept=1.0, load=1.0, other_cores=0.1,
)  # fmt: skip
_RATIOS = {"stock_faust": 20.0, "plain_loop": 2.0, "quix": 5.0, "bytewax": 4.0, "clickhouse_kafka_engine": 2.1}


def test_a_result_has_figures_per_row_and_per_second() -> None:
    """Throughput leaves out the start, CPU time is in µs per row, and memory is in 10^6 bytes."""
    result = _result("chimera", 2.0)
    assert (result.rows_per_s, result.cpu_us_per_row, result.rss_mb) == (150_000, 5.0, 300.0)
    assert result.server_cpu_us_per_row == pytest.approx(2.0)


def test_medians_are_of_each_figure() -> None:
    """The median of three rounds is the middle one, that of two lies between them; the range has all of them."""
    spread = _runs("quix", 5.0, 1.0, 3.0).spread(rows_per_s)
    assert spread is not None
    assert (spread.median, spread.least, spread.greatest) == (100_000, 60_000, 300_000)
    assert _runs("quix", 2.0, 3.0).rows_per_s == 125_000
    assert _runs("clickhouse_kafka_engine", 1.0, cpu=None).cpu_us_per_row is None


def test_a_ratio_compares_the_runs_of_one_round() -> None:
    """A machine that slows down between two rounds changes the throughput and not the ratio."""
    spread = ratio(_runs("chimera", 1.0, 10.0), _runs("quix", 2.0, 20.0), rows_per_s)
    assert spread is not None
    assert (spread.median, spread.least, spread.greatest) == (2.0, 2.0, 2.0)


def test_json_line_has_the_figures_of_the_worker_and_a_ratio_for_each_peer() -> None:
    """A ratio is the worker's rows/s divided by a peer's; readers of the line rely on its names."""
    long = {**_RUNS, "chimera": _runs("chimera", 1.0)}
    line = json_line(Figures(quiet={300_000: _RUNS, 2_000_000: long}, latency=[_LATENCY]))
    found = orjson.loads(line)
    assert "\n" not in line
    assert {name: found[name] for name in ("rows_per_s", "cpu_us_per_row", "rss_mb", "ratio")} == {
        "rows_per_s": 150_000,
        "cpu_us_per_row": 5.0,
        "rss_mb": 300.0,
        "ratio": _RATIOS,
    }
    assert found["ratio_long"] == {name: 2 * value for name, value in _RATIOS.items()}
    assert (found["yardstick_rows"], found["yardstick_cpu"], found["yardstick_server_cpu"]) == (1.0, 2.0, 1.0)
    assert found["latency_ms"] == {"20000/s, linger 1": {"p50": 600, "p99": 1100, "max": 1300}}
    assert found["cores_at_20000_per_s"] == 0.14


@pytest.mark.parametrize(
    ("ran", "expected"),
    [(["chimera", "quix"], {"quix": 5.0}), (["quix", "bytewax"], {}), (["chimera"], {})],
    ids=["one peer", "no worker", "no peer"],
)
def test_only_peers_that_ran_have_a_ratio(ran: list[str], expected: dict[str, float]) -> None:
    """Without the worker or without peers there is no ratio."""
    assert ratios({name: _RUNS[name] for name in ran}) == expected


def test_the_line_of_json_keeps_its_form_without_any_part() -> None:
    """A figure that wasn't measured is null, and a table of figures is empty."""
    line, full = (orjson.loads(json_line(figures)) for figures in (Figures(), Figures(quiet={300_000: _RUNS})))
    assert line.keys() == full.keys()
    assert {name for name, value in line.items() if value} == set()
    assert line["yardstick_rows"] is None
    assert line["ratio"] == {}


def test_a_worst_case_is_compared_with_the_sample() -> None:
    """Its CPU time is divided by that of the sample in the same round."""
    worst = {"sample": _runs("chimera", 2.0), "metadata_distinct": _runs("chimera", 4.0, cpu=3.0)}
    spread = case_cpu(worst, METADATA.name)
    assert spread is not None
    assert spread.median == 2.0
    assert orjson.loads(json_line(Figures(worst=worst)))["worst"]["metadata_distinct"]["cpu"] == 2.0
    assert case_cpu({}, METADATA.name) is None


def test_a_case_that_failed_has_a_row_that_says_so() -> None:
    """A worker that doesn't start with 64 partitions isn't hidden."""
    figures = Figures(worst={"sample": _runs("chimera", 2.0)}, failures=["partitions_64 ended " + "word " * 200])
    assert orjson.loads(json_line(figures))["worst"]["partitions_64"] is None
    text = markdown(figures, "", "")
    assert "| 64 partitions | failed | - | - | - | - |" in text
    assert "word …" in text


def test_every_asked_figure_is_beside_the_measured_one() -> None:
    """A figure of a part that didn't run is a dash."""
    assert {row[3] for row in asked.rows(Figures())} == {"-"}
    worst = {case.name: _runs("chimera", 2.0) for case in (SAMPLE, METADATA, AGENTS)}
    memory = {f"sample_{events}": _result("chimera", 2.0) for events in (1, 2)}
    figures = Figures({300_000: _RUNS}, {300_000: _RUNS}, worst, [_LATENCY], memory)
    measured = {title: value for title, _, _, value in asked.rows(figures)}
    assert measured.pop("numpy path alone, CPU ÷ the CPU before") == "-"
    assert "-" not in measured.values()
    assert measured["rows/s ÷ the yardstick's"].startswith("0.50")
    assert measured["÷ Faust / plain loop / Bytewax / Quix"] == "300,000: 20.0 / 2.0 / 4.0 / 5.0"
    assert measured["rows/s ÷ ClickHouse's Kafka engine, quiet and busy"] == "300,000 quiet 2.10; 300,000 busy 2.10"
    assert measured["CPU of a core at 20,000 events/s"] == "14 %"


def test_markdown_has_a_row_for_each_contender_and_names_machine_and_command() -> None:
    """The CPU time of the ClickHouse engine is the server's and not a contender's."""
    figures = Figures(quiet={300_000: _RUNS}, skipped={"yardstick": "no Go"}, failures=["quix stalled"])
    text = markdown(figures, "2 cores", "python -m benchmarks")
    assert text.startswith("2 cores\n\n`python -m benchmarks`\n\nGo yardstick: skipped, no Go.\n\nFailed: quix stalled")
    rows = text.partition("### 300,000 events")[2].splitlines()[4:]
    assert rows[0] == "| Chimera worker | 150,000 |  | 5.00 | 2.00 | 300 | 4.0 |"
    assert rows[-1] == "| ClickHouse Kafka engine | 71,429 | 2.10 x | - | 2.00 | - | 6.2 |"
    assert len(rows) == len(_RUNS)


def test_each_part_has_its_table() -> None:
    """Worst cases, latency, parts and memory have tables of their own."""
    runs = {"sample": _runs("chimera", 2.0)}
    found = sheets(Figures({300_000: _RUNS}, {300_000: _RUNS}, runs, [_LATENCY], {"sample": _result("chimera", 2.0)}))
    assert [sheet.title for sheet in found] == [
        "Asked and measured",
        "300,000 events",
        "300,000 events, two busy processes beside",
        "Worst cases, 300,000 events",
        "Latency, produce to visible",
        "Parts per minute",
        "Memory",
    ]
    assert all(len(row) == len(sheet.headings) for sheet in found for row in sheet.rows)


def test_docs_keep_what_is_outside_the_markers() -> None:
    """A second table replaces the first, and the rest of the document stays."""
    document = f"before\n\n{BEGIN}\nold\n{END}\n\nafter\n"
    assert replace_marked(document, "new") == f"before\n\n{BEGIN}\nnew\n{END}\n\nafter\n"


@pytest.mark.parametrize("document", ["", BEGIN, f"{END}\n{BEGIN}"], ids=["none", "no end", "wrong order"])
def test_docs_without_markers_are_refused(document: str) -> None:
    """A document without both markers in order is an error."""
    with pytest.raises(ConfigError, match=r"docs/benchmarks\.md"):
        replace_marked(document, "new")


@pytest.mark.parametrize("package", ["fastavro", "clickhouse-driver"])
def test_peers_with_their_own_environment_have_the_project_s_decoder_and_driver(package: str) -> None:
    """All contenders have the same versions of the decoder and the driver."""
    pins = dict(line.split("==") for line in PEER_REQUIREMENTS.read_text(encoding="utf-8").splitlines() if "==" in line)
    assert {name.partition("[")[0]: pin for name, pin in pins.items()}[package] == version(package)


def test_without_go_the_yardstick_is_skipped_with_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The others run, and the reason says what to install."""
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    ready, skipped = prepared([WORKER, YARDSTICK])
    assert ready == [WORKER]
    assert skipped == {"yardstick": "no command `go`; install Go to compare with the yardstick"}
    go = tmp_path / "go"
    go.write_text("#!/bin/sh\necho no module >&2\nexit 1\n", encoding="utf-8")
    go.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda *_, **__: str(go))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(MissingGoError, match="can't build yardstick: no module"):
        runtimes.command(YARDSTICK)


def test_contenders_have_names_of_their_own() -> None:
    """A name stands for one contender in the line of JSON, and for one database."""
    names = [contender.name for contender in CONTENDERS]
    assert len(set(names)) == len(names)
    assert {each.name for each in CONTENDERS if each.worker} >= {"chimera", "without_ranges", "without_rollup"}
    assert len(PEERS) == 5


def test_a_workload_has_topics_of_its_own(tmp_path: Path) -> None:
    """The other families keep theirs; the file names partitions and linger as asked."""
    settings = own_topics(Settings(), "metadata", tmp_path, partitions=64, linger_seconds=0.1)
    own, project = load_catalog(settings), load_catalog(Settings())
    assert own.family("ui_events").topic.name == "bench.metadata.ui_events"
    assert own.family("ui_events").topic.partitions == 64
    assert (batch := own.family("ui_events").topic.batch)
    assert batch.linger_seconds == 0.1
    assert own.rollup is not None
    assert own.rollup.state.name == "bench.metadata.state"
    assert own.family("llm_events") == project.family("llm_events")
    assert load_catalog(own_topics(Settings(), "plain", tmp_path)).family("ui_events").topic.partitions == 8


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_events_of_every_case_are_valid(case: object) -> None:
    """The encoder, which is as strict as the worker, accepts them."""
    assert case in CASES
    encoder = Encoder(load_catalog(Settings()).family("ui_events"), 1)
    for each in CASES:
        for _, event in each.events(50):
            encoder.encode(event)


@pytest.mark.parametrize(("case", "field"), [(METADATA, "metadata"), (AGENTS, "user_agent")])
def test_distinct_values_are_distinct(case: object, field: str) -> None:
    """Each event has a value of its own, and the sample hasn't."""
    chosen = next(each for each in CASES if each is case)
    assert len({event[field] for _, event in chosen.events(500)}) == 500
    assert len({event[field] for _, event in SAMPLE.events(500)}) < 500
    assert all(json.loads(event["metadata"]) for _, event in chosen.events(5))


def test_a_time_is_spliced_as_avro_writes_it() -> None:
    """The load generator replaces the first field of an encoded event."""
    encoder = Encoder(load_catalog(Settings()).family("ui_events"), 1)
    for _, event in usual(20):
        value = encoder.encode(event).value
        assert value[5:11] == time_bytes(event["ts"])


class _Table:
    """Answers of ClickHouse to the watch: parts, then the ranges in the fresh ones."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, str, int, int]] = []
        self.ranges: list[tuple[str, int, int, int]] = []
        self.asked: list[tuple[str, ...]] = []

    def execute(self, sql: str, values: dict[str, tuple[str, ...]] | None = None) -> list[tuple[object, ...]]:
        if "system.parts" in sql:
            return [*self.parts]
        assert values is not None
        self.asked.append(values["names"])
        return [*self.ranges]


def test_a_record_is_visible_from_the_first_look_that_finds_it() -> None:
    """A merge of known parts isn't read again, one with an unknown part is; a missing record has no time."""
    table = _Table()
    watch = Watch(table)
    table.parts, table.ranges = [("a_1_1_0", "a", 1, 1)], [("a_1_1_0", 0, 0, 1)]
    watch.look()
    table.parts, table.ranges = [("a_1_2_1", "a", 1, 2)], [("a_1_2_1", 0, 0, 3), ("a_1_2_1", 1, 0, 0)]
    watch.look()
    table.parts = [("a_1_2_2", "a", 1, 2)]
    watch.look()
    assert table.asked == [("a_1_1_0",), ("a_1_2_1",)]
    first, second = watch.times([5, 1])
    assert first[0] == first[1] < first[2] == first[3]
    assert first[4] == 0
    assert second[0] == first[2]
    assert first.dtype == np.int64


def test_a_part_that_is_merged_before_it_is_read_is_read_in_the_merged_one() -> None:
    """With a short linger ClickHouse merges between the list of parts and the query for their ranges."""
    table = _Table()
    watch = Watch(table)
    table.parts, table.ranges = [("a_1_1_0", "a", 1, 1), ("a_2_2_0", "a", 2, 2)], [("a_1_1_0", 0, 0, 1)]
    assert not watch.look()
    table.parts, table.ranges = [("a_1_2_1", "a", 1, 2)], [("a_1_2_1", 0, 0, 3)]
    assert watch.look()
    (times,) = watch.times([4])
    assert 0 < times[0] == times[1] < times[2] == times[3]


def test_the_middle_of_rounds_has_medians_and_the_greatest_latency() -> None:
    """A single late event isn't lost in a median."""
    slow = Latency(
        Pace(20_000, 1.0), 900.0, 1900.0, 9000.0, cores=0.2, server_cores=0.2, parts_per_minute=500.0,
        stats_parts_per_minute=2.0, kept=0.9, load=1.0, other_cores=0.1,
    )  # fmt: skip
    found = middle([_LATENCY, slow, _LATENCY])
    assert (found.p50_ms, found.p99_ms, found.max_ms, found.cores) == (600.0, 1100.4, 9000.0, 0.14)


def test_the_cpu_time_of_others_leaves_out_our_own() -> None:
    """Work of this process is in the machine's CPU time, and not in that of others."""
    total, others = sum(psutil.cpu_times()), others_cpu_seconds()
    began = time.process_time()
    while time.process_time() < began + 0.3:
        pass
    assert others_cpu_seconds() - others < sum(psutil.cpu_times()) - total - 0.2
