"""Settings that every query sends, so that no profile of the server's changes what is stored or seen.

An administrator sets a profile's values for the sake of other users, or `compatibility` moves the defaults of many
settings at once. A query's own values win. A server ignores a setting that it doesn't know. It refuses a query that may
not change a setting; `check_user` finds that out before the worker starts.
"""

from collections.abc import Mapping

from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.lookups import all_rows
from pipeline.config import ClickHouseSettings
from pipeline.errors import HaltError

SILENCE_SECONDS = 3
"""Seconds that the server waits for the rest of an insert before it refuses all of it. It waits twice."""

BLOCK_SETTINGS: Mapping[str, str | int] = {
    # The server describes all columns of the table before it takes rows.
    "input_format_defaults_for_omitted_fields": 1,
    # A block is inserted as it was sent: its token stands for all of it, and a part of each day.
    "use_strict_insert_block_limits": 0,
    "optimize_on_insert": 1,
    # By default the server refuses more than 100 days in one block, on every attempt.
    "max_partitions_per_insert_block": 0,
    # The columns of coordinates are MATERIALIZED; the worker has their values.
    "insert_allow_materialized_columns": 1,
}
"""Settings of every block that is sent."""

INSERT_SETTINGS: Mapping[str, str | int] = {
    **BLOCK_SETTINGS,
    # A deduplication token needs the block as it was sent, inserted before the server answers.
    "async_insert": 0,
    "insert_deduplicate": 1,
    "deduplicate_insert": "enable",
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    # The server refuses a worker that was stopped in the middle of an insert and goes on much later.
    "receive_timeout": SILENCE_SECONDS,
}
"""Settings of an insert with a token."""


def check_user(settings: ClickHouseSettings) -> None:
    """Check that the user may write, and may use the settings that inserts and look-ups send.

    Raises:
        HaltError: the user is read-only, or a constraint fixes one of the settings at another value.
        UnavailableError: the server doesn't answer.
    """
    with explained(settings), connect(settings, database="") as client:
        ((readonly,),) = all_rows(client, "SELECT getSetting('readonly')")
        if readonly:
            raise HaltError(
                f"ClickHouse at {settings.address}: user {settings.user!r} is read-only (setting readonly is "
                f"{readonly}); expected a user who may insert: see `chimera access sql`"
            )
        client.execute("SELECT 1", settings=dict(INSERT_SETTINGS))
