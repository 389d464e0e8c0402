"""`chimera schemas check` and `chimera topics plan` refuse what the worker would refuse, without a server."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from pipeline.cli import cli
from pipeline.clickhouse.declared_columns import declared_columns
from pipeline.config import env_name, load_settings
from pipeline.errors import ConfigError
from pipeline.operations.doctor.declared import declared_catalog, refusals

ROOT = Path(__file__).parents[2]
Edit = Callable[[dict[str, Any], dict[str, Any]], object]


def _field(schema: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(field for field in schema["fields"] if field["name"] == name)
    return found


def _unknown_family(topics: dict[str, Any], _: dict[str, Any]) -> None:
    topics["topics"]["chimera.ui_events"]["family"] = "ui_evens"


def _no_field(topics: dict[str, Any], _: dict[str, Any]) -> None:
    topics["topics"]["chimera.ui_events"]["key"] = "sesion_id"


def _event_type(_: dict[str, Any], schema: dict[str, Any]) -> None:
    field = _field(schema, "event_type")
    field["one_of" if "one_of" in field else "values"].append("overlay_close")


def _no_bounds(_: dict[str, Any], schema: dict[str, Any]) -> None:
    for bound in ("min", "max"):
        _field(schema, "ts").pop(bound)


def _narrow_column(_: dict[str, Any], schema: dict[str, Any]) -> None:
    _field(schema, "latency_ms").pop("max")


def _no_column(_: dict[str, Any], schema: dict[str, Any]) -> None:
    schema["fields"].append({"name": "language", "type": "string", "default": "", "privacy": "text"})


@pytest.fixture
def edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Edit], None]:
    """Change copies of topics.yaml and of the newest schema of ui_events, and point the settings to them."""
    directory = shutil.copytree(ROOT / "schemas/avro", tmp_path / "avro")
    topics = yaml.safe_load((ROOT / "topics.yaml").read_text(encoding="utf-8"))
    newest = max(directory.glob("ui_events.v*.avsc"), key=lambda path: int(path.suffixes[0].removeprefix(".v")))

    def edit(change: Edit) -> None:
        schema = json.loads(newest.read_text(encoding="utf-8"))
        change(topics, schema)
        newest.write_text(json.dumps(schema), encoding="utf-8")
        (tmp_path / "topics.yaml").write_text(yaml.safe_dump(topics), encoding="utf-8")
        monkeypatch.setenv(env_name("topics", "file"), str(tmp_path / "topics.yaml"))
        monkeypatch.setenv(env_name("schemas", "directory"), str(directory))

    return edit


def _check() -> Result:
    return CliRunner().invoke(cli, ["schemas", "check"], catch_exceptions=False)


def test_what_is_checked_in_is_accepted() -> None:
    """Nothing is printed on standard error, and the exit code is 0."""
    result = _check()
    assert (result.exit_code, result.stderr) == (0, "")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(_unknown_family, "no schema ui_evens.v<N>.avsc; expected one of", id="unknown family"),
        pytest.param(_no_field, "with logicalType uuid, got 'sesion_id'", id="a key that is no field"),
        pytest.param(_event_type, "event_type: expected the values", id="a new event type"),
        pytest.param(_no_bounds, "timestamp-millis from 1900 to 2299", id="a ts without bounds"),
        pytest.param(_narrow_column, "from 0 to 4294967295", id="a number without bounds"),
        pytest.param(_no_column, "no column for field language", id="a field without a column"),
    ],
)
def test_what_the_worker_refuses_is_refused(change: Edit, words: str, edited: Callable[[Edit], None]) -> None:
    """`schemas check` ends with 1 and names it; `topics plan` ends with 78 before it asks a broker."""
    edited(change)
    result = _check()
    assert result.exit_code == 1
    assert words in result.stderr
    with pytest.raises(ConfigError) as refused:
        declared_catalog(load_settings())
    assert words in str(refused.value)


def test_without_a_rollup_any_event_type_goes(edited: Callable[[Edit], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker accepts it, too."""
    edited(_event_type)
    monkeypatch.setenv(env_name("rollup", "enabled"), "false")
    assert refusals(load_settings()) == []


def test_every_change_that_a_command_writes_is_read(tmp_path: Path) -> None:
    """A migration of one's own has quoted names, nested types, added, defaulted and dropped columns."""
    (tmp_path / "1000_orders.sql").write_text(
        "CREATE TABLE IF NOT EXISTS orders (\n"
        "    `ts` DateTime64(3,'UTC'),\n"
        "    `prices` Map(LowCardinality(String), Nullable(Decimal(10,2))),\n"
        "    `tags` Array(String),\n"
        "    _offset UInt64 MATERIALIZED 0 CODEC(T64, ZSTD(1))\n"
        ") ENGINE=MergeTree\nORDER BY ts;\n"
    )
    (tmp_path / "1001_orders.sql").write_text(
        "ALTER TABLE orders ADD COLUMN IF NOT EXISTS `note` String DEFAULT '',\n"
        "    MODIFY COLUMN IF EXISTS `tags` DEFAULT defaultValueOfTypeName('Array(String)');\n"
    )
    columns = declared_columns(tmp_path)["orders"]
    assert {name: (column.type, column.kind) for name, column in columns.items()} == {
        "ts": ("DateTime64(3,'UTC')", ""),
        "prices": ("Map(LowCardinality(String), Nullable(Decimal(10,2)))", ""),
        "tags": ("Array(String)", "DEFAULT"),
        "_offset": ("UInt64", "MATERIALIZED"),
        "note": ("String", "DEFAULT"),
    }
    (tmp_path / "1002_orders.sql").write_text("ALTER TABLE orders DROP COLUMN IF EXISTS `tags`;\n")
    assert "tags" not in declared_columns(tmp_path)["orders"]
