"""Old parts in the table's present form: its codecs and its indexes. Rows and coordinates stay the same."""

from collections.abc import Iterable
from typing import Any

from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.lookups import all_rows
from pipeline.config import ClickHouseSettings

# A part has the default codec of its writing. Parts without any index block were written before there was an index.
_OLD = """
SELECT partition, partition_id, sum(rows), sum(bytes_on_disk)
FROM system.parts
WHERE database = currentDatabase() AND table = %(table)s AND active AND rows > 0
GROUP BY partition, partition_id
HAVING countIf(default_compression_codec != %(codec)s OR (%(indexes)s AND secondary_indices_compressed_bytes = 0)) > 0
ORDER BY partition
"""
_CODEC = """
SELECT extract(engine_full, 'default_compression_codec = \\'([^\\']+)\\'')
FROM system.tables WHERE database = currentDatabase() AND name = %(table)s
"""
_INDEXES = """
SELECT count() FROM system.data_skipping_indices
WHERE database = currentDatabase() AND table = %(table)s AND creation = 'Explicit'
"""
_SIZE = """
SELECT sum(bytes_on_disk) FROM system.parts
WHERE database = currentDatabase() AND table = %(table)s AND active AND partition_id = %(partition)s
"""
_LONGEST_SECONDS = 6 * 3600.0

OldDay = tuple[str, str, int, int]
"""Day, id of its partition, rows, bytes."""


def old_days(client: Any, table: str) -> list[OldDay]:
    """Return the days with parts that have another codec than the table, or lack an index; oldest first.

    Raises:
        clickhouse_driver.errors.Error, OSError, EOFError: a query failed.
    """
    ((codec,),) = all_rows(client, _CODEC, {"table": table})
    ((indexes,),) = all_rows(client, _INDEXES, {"table": table})
    found = all_rows(client, _OLD, {"table": table, "codec": codec or "LZ4", "indexes": int(indexes > 0)})
    return [(day, partition, rows, size) for day, partition, rows, size in found]


def recompress(settings: ClickHouseSettings, table: str, day: OldDay) -> tuple[int, bool]:
    """Write a day's parts anew, as one merge does it; workers may go on.

    The server needs free space of the day's size meanwhile. It goes on if this process ends.

    Args:
        settings: server and database.
        table: a table of the MergeTree family.
        day: one of `old_days`.

    Returns:
        Bytes of the day afterwards, and if it is in the present form; a merge that was under way may have prevented it.

    Raises:
        HaltError, UnavailableError: the server refuses, or doesn't answer.
    """
    patient = settings.model_copy(update={"query_timeout_seconds": _LONGEST_SECONDS})
    with explained(settings), connect(patient) as client:
        client.execute(
            f"OPTIMIZE TABLE `{table}` PARTITION ID '{day[1]}' FINAL",
            settings={"optimize_skip_merged_partitions": 0, "max_execution_time": 0},
        )
        ((size,),) = all_rows(client, _SIZE, {"table": table, "partition": day[1]})
        return int(size), day[1] not in _ids(old_days(client, table))


def _ids(days: Iterable[OldDay]) -> set[str]:
    return {partition for _, partition, _, _ in days}
