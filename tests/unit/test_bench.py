"""Report of the benchmark: medians, ratios, the line of JSON and the table for the docs."""

from importlib.metadata import version

import orjson
import pytest

from benchmarks.contenders import PEER_REQUIREMENTS
from benchmarks.report import BEGIN, END, Result, json_line, markdown, median, ratios, replace_marked
from pipeline.errors import ConfigError


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


_RESULTS = {
    "chimera": _result("chimera", 2.0),
    "stock_faust": _result("stock_faust", 40.0, cpu=30.0),
    "plain_loop": _result("plain_loop", 4.0),
    "quix": _result("quix", 10.0),
    "bytewax": _result("bytewax", 8.0),
    "clickhouse_kafka_engine": _result("clickhouse_kafka_engine", 4.2, cpu=None, rss=None),
}


def test_a_result_has_figures_per_row_and_per_second() -> None:
    """Throughput leaves out the start, CPU time is in µs per row, and memory is in 10^6 bytes."""
    result = _RESULTS["chimera"]
    assert (result.rows_per_s, result.cpu_us_per_row, result.rss_mb) == (150_000, 5.0, 300.0)
    assert result.server_cpu_us_per_row == pytest.approx(2.0)


def test_json_line_has_the_figures_of_the_worker_and_a_ratio_for_each_peer() -> None:
    """A ratio is the worker's rows/s divided by a peer's; readers of the line rely on its names."""
    assert orjson.loads(json_line(_RESULTS)) == {
        "rows_per_s": 150_000,
        "cpu_us_per_row": 5.0,
        "rss_mb": 300.0,
        "ratio": {
            "stock_faust": 20.0,
            "plain_loop": 2.0,
            "quix": 5.0,
            "bytewax": 4.0,
            "clickhouse_kafka_engine": 2.1,
        },
    }
    assert "\n" not in json_line(_RESULTS)


@pytest.mark.parametrize(
    ("ran", "expected"),
    [(["chimera", "quix"], {"quix": 5.0}), (["quix", "bytewax"], {}), (["chimera"], {})],
    ids=["one peer", "no worker", "no peer"],
)
def test_only_peers_that_ran_have_a_ratio(ran: list[str], expected: dict[str, float]) -> None:
    """Without the worker or without peers there is no ratio."""
    assert ratios({name: _RESULTS[name] for name in ran}) == expected


def test_without_the_worker_its_figures_are_null() -> None:
    """The line of JSON keeps its form without the worker."""
    line = orjson.loads(json_line({"quix": _RESULTS["quix"]}))
    assert line == {"rows_per_s": None, "cpu_us_per_row": None, "rss_mb": None, "ratio": {}}


@pytest.mark.parametrize(
    ("seconds", "middle"), [([3.0], 3.0), ([5.0, 1.0, 3.0], 3.0), ([2.0, 8.0], 8.0)], ids=["one", "odd", "even"]
)
def test_median_is_a_run_that_took_place(seconds: list[float], middle: float) -> None:
    """The median is the middle run, or the slower of two, so all its figures are of one run."""
    assert median([_result("quix", value) for value in seconds]).seconds == middle


def test_markdown_has_a_row_for_each_contender_and_names_machine_and_command() -> None:
    """The CPU time of the ClickHouse engine is the server's and not a contender's."""
    lines = markdown(_RESULTS, "2 cores", "python -m benchmarks").splitlines()
    assert lines[0] == "2 cores"
    assert lines[2] == "`python -m benchmarks`"
    rows = [line for line in lines if line.startswith("| ")][1:]
    assert rows[0] == "| Chimera worker | 150,000 |  | 5.0 | 2.0 | 300.0 | 4.0 |"
    assert rows[-1] == "| ClickHouse Kafka engine | 71,429 | 2.1 x | - | 2.0 | - | 6.2 |"
    assert len(rows) == len(_RESULTS)


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
