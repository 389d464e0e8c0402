"""Put recovered tables in the place of the live ones."""

from collections.abc import Collection, Iterable
from typing import Any

from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.lookups import all_rows
from pipeline.config import ClickHouseSettings, Settings
from pipeline.errors import ChimeraError
from pipeline.operations.backup.manifest import TABLE, Manifest

_REPLICATED = """
SELECT name FROM system.tables WHERE database = currentDatabase() AND startsWith(engine, 'Replicated') ORDER BY name
"""


class ReplicatedError(ChimeraError):
    """The live tables are replicated, and an exchange would hold for one server; nothing was changed."""


def check_exchangeable(clickhouse: ClickHouseSettings) -> None:
    """Check that recovered tables can take the place of the live ones.

    Raises:
        ReplicatedError: they are replicated.
        UnavailableError, HaltError: ClickHouse doesn't answer, or refuses.
    """
    with explained(clickhouse), connect(clickhouse) as client:
        if replicated := all_rows(client, _REPLICATED):
            raise ReplicatedError(
                f"table {clickhouse.database}.{replicated[0][0]} at {clickhouse.address} is replicated, and --in-place "
                "would exchange it at this server alone; expected none: recover beside, stop the workers, and replace "
                "days with ALTER TABLE ... REPLACE PARTITION ... FROM the recovered table, which all replicas follow"
            )


def exchange(settings: Settings, into: str, tables: Iterable[str]) -> None:
    """Put recovered tables in the place of the live ones, which get to the other database; may be repeated.

    Raises:
        UnavailableError, HaltError: ClickHouse doesn't answer, or refuses.
    """
    manifest, live = Manifest(settings.clickhouse), settings.clickhouse.database
    last = manifest.restore_of(into)
    chosen = sorted(set(tables) - {TABLE, "schema_versions"})
    with explained(settings.clickhouse), connect(settings.clickhouse, database="") as client:
        if "uuids" not in last:
            last = {**last, "uuids": _uuids(client, into, chosen)}
            manifest.note_restore(into, "exchanging", {"uuids": last["uuids"]})
        there = _uuids(client, live, chosen)
        for table in chosen:
            if there.get(table) == last["uuids"][table]:
                continue  # a killed process has done it
            verb = (
                f"EXCHANGE TABLES `{live}`.`{table}` AND" if table in there else f"RENAME TABLE `{into}`.`{table}` TO"
            )
            client.execute(f"{verb} `{into if table in there else live}`.`{table}`")
    manifest.note_restore(into, "exchanged", {})


def _uuids(client: Any, database: str, tables: Collection[str]) -> dict[str, str]:
    query = "SELECT name, toString(uuid) FROM system.tables WHERE database = %(database)s"
    return {name: uuid for name, uuid in all_rows(client, query, {"database": database}) if name in tables}
