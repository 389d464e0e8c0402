"""A family with every kind of Avro type, through all that reads its records or its table again."""

import json
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from support.commands import Chimera, command
from support.kafka_topic import Topic

from pipeline.catalog import load_catalog
from pipeline.cli.own_families import OwnFolder, topic_text
from pipeline.clickhouse.client import connect
from pipeline.clickhouse.ddl import create_table
from pipeline.config import Settings, load_settings
from pipeline.kafka.offsets import TopicReader
from pipeline.producer import Producer
from pipeline.schema.versions import load_schema

pytestmark = pytest.mark.integration

_WIDE = {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 10}
_MICROS = {"type": "long", "logicalType": "timestamp-micros"}
_DATE = {"type": "int", "logicalType": "date"}
_BOUNDS = {"min": 0, "max": 4 * 10**15}
_KEYS = {"key_pattern": "^[a-z]{1,8}$"}
_FIELDS: list[dict[str, Any]] = [
    {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}, "min": 0, "max": 4294967295999},
    {"name": "kind_id", "type": {"type": "string", "logicalType": "uuid"}},
    {"name": "flag", "type": "boolean"},
    {"name": "colour", "type": {"type": "enum", "name": "Colour", "symbols": ["red", "green"]}},
    {"name": "digest", "type": {"type": "fixed", "name": "Digest", "size": 5}, "privacy": "keep"},
    {"name": "blob", "type": "bytes", "privacy": "keep"},
    {"name": "wide", "type": _WIDE},
    {"name": "day", "type": _DATE, "min": 0, "max": 65535},
    {"name": "at", "type": _MICROS, **_BOUNDS},
    {"name": "clock", "type": {"type": "int", "logicalType": "time-millis"}},
    {"name": "maybe", "type": ["null", _DATE], "min": 0, "max": 65535, "default": None},
    {"name": "wides", "type": {"type": "array", "items": _WIDE}, "default": []},
    {"name": "times", "type": {"type": "map", "values": _MICROS}, **_KEYS, **_BOUNDS, "default": {}},
    {"name": "flags", "type": {"type": "map", "values": "boolean"}, **_KEYS, "default": {}},
]
_TS = "2026-03-01T12:00:00Z"
_EVENT = {
    "flag": True,
    "colour": "green",
    "digest": b"abcde",
    "blob": b"\x00\xff",
    "wide": "-1234567890123456789012345678.0123456789",
    "day": "2026-11-29",
    "at": "2026-11-29T12:00:00.123456Z",
    "clock": "13:14:15.167",
    "maybe": "2026-11-30",
    "wides": ["-0.0000000001", "1"],
    "times": {"a": "2026-11-29T12:00:00.000001Z"},
    "flags": {"x": True, "y": False},
}
_ROW = (
    True,
    "green",
    "abcde",
    b"\x00\xff",
    Decimal("-1234567890123456789012345678.0123456789"),
    date(2026, 11, 29),
    datetime(2026, 11, 29, 12, 0, 0, 123456, tzinfo=UTC),
    47_655_167,
    date(2026, 11, 30),
    [Decimal("-0.0000000001"), Decimal(1)],
    {"a": datetime(2026, 11, 29, 12, 0, 0, 1, tzinfo=UTC)},
    {"x": True, "y": False},
)
_CONTENT = "SELECT count(), sum(cityHash64(*, _topic_id, _partition, _offset)) FROM {table}"
_SOME = 20


class Kinds:
    """The family, its log and its table; a fill stands for the worker."""

    def __init__(
        self, settings: Settings, chimera: Chimera, monkeypatch: pytest.MonkeyPatch, folder: Path, engine: str
    ) -> None:
        place = OwnFolder.at(folder)
        for each in (place.schemas, place.migrations):
            each.mkdir(parents=True)
        schema = place.schemas / "kinds.v1.avsc"
        schema.write_text(json.dumps({"type": "record", "name": "Kinds", "fields": _FIELDS}), encoding="utf-8")
        table = create_table(load_schema(schema), "kinds", "kind_id").replace("ENGINE=MergeTree", f"ENGINE={engine}")
        table = table.replace("ORDER BY (ts, `kind_id`)", "ORDER BY `kind_id`")
        (place.migrations / "1000_kinds.sql").write_text(table, encoding="utf-8")
        own = settings.kafka.group_id.removeprefix("test-")
        topic = topic_text("kinds", "kind_id").replace("chimera.kinds", f"{own}.chimera.kinds")
        place.topics.write_text(f"version: 1\ntopics:\n{topic}", encoding="utf-8")
        for name, path in place.environment.items():
            monkeypatch.setenv(name, str(path))
        self.settings, self._chimera = load_settings(), chimera
        self.run("topics", "apply", "--yes")
        self.run("migrate")
        spec = load_catalog(self.settings).family("kinds").topic
        self._topic = Topic.existing(settings.kafka, spec.name, spec.partitions)

    def run(self, *arguments: str) -> str:
        """Run a command that must succeed; return what it prints."""
        ended = self._chimera(*arguments)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def fill(self, *arguments: str) -> dict[str, Any]:
        """Replay, and return the facts."""
        facts: dict[str, Any] = json.loads(self.run("replay", "kinds", *arguments, "--execute", "--json"))
        return facts

    def add(self, ids: Sequence[UUID] = (), ts: str = _TS) -> datetime:
        """Publish, commit and store events, the second half without the fields that have defaults; return a moment."""
        keys = ids or [uuid4() for _ in range(_SOME)]
        with Producer(self.settings) as producer:
            for number, key in enumerate(keys):
                left_out = {"maybe", "wides", "times", "flags"} if number >= _SOME // 2 else set[str]()
                event = {name: value for name, value in _EVENT.items() if name not in left_out}
                producer.send("kinds", {**event, "ts": ts, "kind_id": str(key)})
        with TopicReader(self.settings.kafka, self._topic.name) as reader:
            for number, log in reader.ranges().items():
                self._topic.commit(log.stop, "", number)
        self.fill()
        time.sleep(0.02)
        moment = datetime.now(UTC)
        time.sleep(0.02)
        return moment

    def select(self, query: str) -> Any:
        """Return the first row of a query."""
        with connect(self.settings.clickhouse) as client:
            rows = client.execute(query)
        return rows[0] if rows else None


def test_every_type_is_read_again_as_it_was_stored(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Fill, rewrite, another table, a dump, verify, and a recovery to a moment give equal rows and coordinates."""
    kinds = Kinds(settings, command(capsys, monkeypatch), monkeypatch, tmp_path / "families", "MergeTree")
    kinds.add()
    whole = kinds.select(_CONTENT.format(table="kinds"))
    assert kinds.select("SELECT * EXCEPT (ts, kind_id) FROM kinds WHERE notEmpty(flags) LIMIT 1") == _ROW
    assert whole[0] == _SOME

    kinds.select("ALTER TABLE kinds DELETE WHERE cityHash64(kind_id) % 3 = 0 SETTINGS mutations_sync = 2")
    lost = _SOME - kinds.select("SELECT count() FROM kinds")[0]
    assert kinds.fill()["inserted"] == lost
    made = kinds.fill("--day", "2026-03-01")
    assert (made["inserted"], made["carried"], made["removed"]) == (_SOME, 0, 0)
    assert kinds.select(_CONTENT.format(table="kinds")) == whole
    kinds.fill("--into", "kinds_again")
    dump = tmp_path / "kinds.dump"
    dump.write_text(kinds.run("tap", "kinds", "--since", "1h", "--no-follow", "--raw"), encoding="utf-8")
    kinds.fill("--from-file", str(dump), "--into", "kinds_of_file")
    assert [kinds.select(_CONTENT.format(table=f"kinds_{of}")) for of in ("again", "of_file")] == [whole, whole]
    assert kinds.run("verify", "kinds").splitlines()[-1] == "0 lost, 0 doubled, 0 strange"

    kinds.run("backup", "create")
    moment = kinds.add()
    before = kinds.select(_CONTENT.format(table="kinds"))
    kinds.add()
    kinds.run("restore", "--to", moment.isoformat(), "--into", f"{settings.clickhouse.database}_then", "--execute")
    assert before[0] == 2 * _SOME
    assert kinds.select(_CONTENT.format(table=f"{settings.clickhouse.database}_then.kinds")) == before


def test_rows_that_later_ones_have_replaced_are_recovered(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A family of one's own may have a ReplacingMergeTree: a backup after the moment has the later rows only."""
    place = tmp_path / "families"
    kinds = Kinds(settings, command(capsys, monkeypatch), monkeypatch, place, "ReplacingMergeTree(ts)")
    keys = [uuid4() for _ in range(_SOME)]
    moment = kinds.add(keys)
    before = kinds.select(_CONTENT.format(table="kinds"))
    kinds.add(keys, "2026-03-01T13:00:00Z")
    kinds.select("OPTIMIZE TABLE kinds FINAL")
    kinds.run("backup", "create")
    kinds.run("restore", "--to", moment.isoformat(), "--into", f"{settings.clickhouse.database}_then", "--execute")
    assert kinds.select(_CONTENT.format(table="kinds")) != before
    assert kinds.select(_CONTENT.format(table=f"{settings.clickhouse.database}_then.kinds")) == before
