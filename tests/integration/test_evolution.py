"""The stories of docs/evolution.md, each as it is told there."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.commands import Chimera, command
from support.processes import Worker

from pipeline.catalog import load_catalog
from pipeline.clickhouse.client import connect
from pipeline.clickhouse.contract import check_tables
from pipeline.config import Settings, load_settings
from pipeline.errors import HaltError
from pipeline.producer import Producer

pytestmark = pytest.mark.integration

_ORDER = {
    "order_id": "6d9a30c2-15fe-4b7d-a2c8-0e74b95f1d36",
    "total": 19.5,
    "paid": True,
    "tags": ["gift", "express"],
    "note": None,
}
_STATE = {"name": "state", "type": "string", "one_of": ["open", "shut"], "default": "open"}


class OwnFamilies:
    """A folder of families of one's own, and the commands and events of the family `orders` in it."""

    def __init__(self, settings: Settings, chimera: Chimera, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.settings, self.chimera, self.folder = settings, chimera, folder
        self._monkeypatch = monkeypatch

    def use(self, folder: Path) -> dict[str, str]:
        """Name a folder in the settings, as its file `env` does; return the variables."""
        lines = (self.folder / "env").read_text(encoding="utf-8").splitlines()
        named = dict(line.removeprefix("export ").replace("'", "").split("=") for line in lines)
        named = {name: place.replace(str(self.folder), str(folder)) for name, place in named.items()}
        for name, place in named.items():
            self._monkeypatch.setenv(name, place)
        self.settings = load_settings()
        return named

    def begin(self, event: dict[str, Any]) -> None:
        """Begin the family from an event, and create its topic and table."""
        source = self.folder.parent / "order.json"
        source.write_text(json.dumps(event), encoding="utf-8")
        assert (
            self.chimera("family", "new", "orders", "--from", str(source), "--folder", str(self.folder)).returncode == 0
        )
        topics = self.folder / "topics.yaml"
        own = self.settings.kafka.group_id.removeprefix("test-")
        topics.write_text(topics.read_text(encoding="utf-8").replace("chimera.orders", f"{own}.chimera.orders"))
        self.use(self.folder)
        self.apply()

    def apply(self) -> None:
        """Create topics and run pending migrations."""
        assert self.chimera("topics", "apply", "--yes").returncode == 0
        assert self.chimera("migrate").returncode == 0

    def newer(self, *changes: Any, version: int = 2) -> Path:
        """Write the next version of the schema; each change gets the list of its fields."""
        raw = json.loads((self.folder / f"schemas/orders.v{version - 1}.avsc").read_text(encoding="utf-8"))
        for change in changes:
            change(raw["fields"])
        file = self.folder / f"schemas/orders.v{version}.avsc"
        file.write_text(json.dumps(raw), encoding="utf-8")
        return file

    def publish(self, *events: dict[str, Any]) -> None:
        """Publish orders with the schema that the settings name."""
        with Producer(self.settings) as producer:
            for event in events:
                producer.send("orders", {"ts": "2026-03-01T12:00:00Z", **_ORDER, **event})

    def select(self, what: str) -> list[tuple[Any, ...]]:
        """Return columns of all orders."""
        with connect(self.settings.clickhouse) as client:
            found: list[tuple[Any, ...]] = client.execute(f"SELECT {what} FROM orders ORDER BY ALL")
            return found

    def fits(self) -> bool:
        """True if a worker with these schemas would start on the table."""
        try:
            check_tables(self.settings.clickhouse, [load_catalog(self.settings).family("orders")])
        except HaltError:
            return False
        return True


@pytest.fixture
def own(
    settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> OwnFamilies:
    return OwnFamilies(settings, command(capsys, monkeypatch), monkeypatch, tmp_path / "families")


def test_a_new_family_in_five_minutes(own: OwnFamilies, environ: dict[str, str], tmp_path: Path) -> None:
    """From one event to rows: the commands of the page, and no line of Python."""
    own.begin(_ORDER)
    checked = own.chimera("family", "check", "orders")
    assert checked.returncode == 0, checked.stdout
    assert "missing" not in checked.stdout
    assert "numpy, its items found record by record" in checked.stdout
    assert own.chimera("produce", "--sample", "40", "--families", "orders").returncode == 0
    with Worker(environ | own.use(own.folder), tmp_path / "worker.log") as worker:
        worker.wait_for(lambda: own.select("count()") == [(40,)], "all sample events are rows")
        assert worker.terminate() == 0
    assert own.select("DISTINCT tags, isNull(note), schema_version") == [(["gift", "express"], 1, 1)]
    assert own.chimera("verify", "orders").returncode == 0


def test_a_field_is_added_while_old_and_new_run_together(
    own: OwnFamilies, environ: dict[str, str], tmp_path: Path
) -> None:
    """The old worker runs on and restarts after the migration; a new record that it meets is requeued afterwards."""
    own.begin(_ORDER)
    former = Path(shutil.copytree(own.folder, tmp_path / "former"))
    own.newer(lambda fields: fields.append(_STATE))
    wrote = own.chimera("schemas", "migrate", "orders")
    assert wrote.returncode == 0, wrote.stderr
    old, new = environ | own.use(former), environ | own.use(own.folder)
    log = tmp_path / "worker.log"
    with Worker(old, log) as worker:
        worker.wait_until_consuming()
        own.apply()
        own.use(former)
        own.publish({"total": 1.0})
        worker.wait_for(lambda: own.select("count()") == [(1,)], "the running worker stores on")
        assert worker.terminate() == 0
    with Worker(old, log) as worker:  # it starts again with the table of the new version
        own.publish({"total": 2.0})
        own.use(own.folder)
        own.publish({"total": 3.0, "state": "shut"})
        worker.wait_for(lambda: own.select("count()") == [(2,)], "the restarted worker stores on")
        worker.wait_for(
            lambda: worker.metric("chimera_records_rejected_total", reason="unknown_schema"), "a dead letter"
        )
        assert worker.terminate() == 0
    with Worker(new, log) as worker:
        worker.wait_until_consuming()
        assert own.chimera("dlq", "requeue", "--reason", "unknown_schema", "--execute").returncode == 0
        worker.wait_for(lambda: own.select("count()") == [(3,)], "the requeued record is a row")
    assert own.select("total, state, schema_version") == [(1.0, "open", 1), (2.0, "open", 1), (3.0, "shut", 2)]


def test_a_widened_set_needs_no_migration(own: OwnFamilies) -> None:
    """A value more, a wider bound and null where none was: only the last one changes a column."""
    own.begin({**_ORDER, "count": 3})
    own.newer(lambda fields: fields.append(_STATE))
    assert own.chimera("schemas", "migrate", "orders").returncode == 0
    own.newer(lambda fields: fields[-1].update(one_of=["open", "shut", "lost"]), version=3)
    assert "no change" in own.chimera("schemas", "migrate", "orders").stdout
    own.newer(lambda fields: _field(fields, "count").update(type=["null", "long"]), version=4)
    wrote = own.chimera("schemas", "migrate", "orders", "--print").stdout
    assert "MODIFY COLUMN `count` Nullable(UInt32)" in wrote
    assert own.chimera("schemas", "migrate", "orders").returncode == 0
    own.apply()
    assert own.fits()


def test_a_field_is_retired(own: OwnFamilies) -> None:
    """Its column stays for old workers, with a default for new ones, and is dropped when no old one is left."""
    own.begin(_ORDER)
    former = Path(shutil.copytree(own.folder, own.folder.parent / "former"))
    own.newer(lambda fields: fields.remove(_field(fields, "tags")))
    assert own.chimera("schemas", "migrate", "orders").returncode == 0
    own.apply()
    assert own.fits()
    own.use(former)
    assert own.fits()
    own.use(own.folder)
    assert own.chimera("schemas", "migrate", "orders", "--drop-retired").returncode == 0
    own.apply()
    assert own.fits()
    assert "tags" not in {name for name, *_ in _columns(own)}
    own.use(former)
    assert not own.fits()


def test_an_incompatible_change_is_refused_with_the_way_out(own: OwnFamilies) -> None:
    """Text where a number was breaks the log; a field of its own beside it doesn't."""
    own.begin(_ORDER)
    broken = own.newer(lambda fields: _field(fields, "total").update(type="string", privacy="text"))
    refused = own.chimera("schemas", "migrate", "orders")
    assert refused.returncode == 1
    assert "orders.v2.avsc: total: double can't be read as string" in refused.stderr
    assert "add another one beside it" in refused.stderr
    broken.unlink()
    text = {"name": "total_text", "type": "string", "max_length": 40, "privacy": "text", "default": ""}
    own.newer(lambda fields: fields.append(text))
    assert own.chimera("schemas", "migrate", "orders").returncode == 0
    own.apply()
    assert own.fits()


def _field(fields: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(field for field in fields if field["name"] == name)


def _columns(own: OwnFamilies) -> list[tuple[Any, ...]]:
    with connect(own.settings.clickhouse) as client:
        found: list[tuple[Any, ...]] = client.execute("DESCRIBE TABLE orders")
        return found
