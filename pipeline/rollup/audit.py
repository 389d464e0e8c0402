"""session_stats as SQL: compute every row from ui_events, and compare the table with the result.

Each query covers one hour: ClickHouse needs memory for the sessions of that hour, this process for none.
"""

import enum
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np

from pipeline.clickhouse.catching_up import catch_up
from pipeline.clickhouse.lookups import all_rows, marked_rows
from pipeline.clickhouse.session_stats import COLUMNS, TABLE
from pipeline.clickhouse.ttl import expired_times

HOUR_SECONDS = 3600
_DAY_MS = 86_400_000
_EPOCH = date(1970, 1, 1)

_NAMES = ", ".join(COLUMNS)
# The window function looks for the next event separately among errors and among other events, so an error between two
# other events doesn't count.
_ROWS = """
    SELECT
        toDateTime({begins_at}) AS hour,
        session_id,
        toUInt32(intDiv(2 * sum(latency_ms) + count(), 2 * count())) AS avg_latency_ms,
        toFloat32(countIf(event_type = 'error') / count()) AS error_rate,
        toFloat32(if(countIf(event_type = 'overlay_open') = 0, 0,
            countIf(abandoned) / countIf(event_type = 'overlay_open'))) AS abandonment_rate,
        toUInt32(count()) AS events_count,
        toUInt32(intDiv(max(ms) - min(ms), 1000)) AS duration_seconds
    FROM (
        SELECT
            session_id, event_type, latency_ms, toUnixTimestamp64Milli(ts) AS ms,
            event_type = 'overlay_open' AND leadInFrame(event_type, 1, '') OVER (
                PARTITION BY session_id, event_type = 'error' ORDER BY ts, event_type = 'query_submit'
                ROWS BETWEEN CURRENT ROW AND 1 FOLLOWING
            ) != 'query_submit' AS abandoned
        FROM `{source}`
        WHERE ts >= fromUnixTimestamp64Milli({begins_at} * 1000, 'UTC')
            AND ts < fromUnixTimestamp64Milli(({begins_at} + 3600) * 1000, 'UTC')
            AND {begins_at} % 3600 = 0
    )
    GROUP BY session_id
"""
_BITS = (
    "(avg_latency_ms, reinterpretAsUInt32(error_rate), reinterpretAsUInt32(abandonment_rate), events_count, "
    "duration_seconds)"
)
_NOTHING = "(0::UInt32, 0::UInt32, 0::UInt32, 0::UInt32, 0::UInt32)"
# The last row is no session: the server may end a query that is killed without an error, and without its last rows.
_DIFFERENCES = f"""
    SELECT
        last, session_id, countIf(stored) AS copies, anyIf(bits, stored) AS found,
        countIf(NOT stored) AS wanted, anyIf(bits, NOT stored) AS expected
    FROM (
        SELECT false AS last, session_id, true AS stored, {_BITS} AS bits
        FROM {TABLE} WHERE hour = toDateTime({{begins_at}})
        UNION ALL
        SELECT false, session_id, false, {_BITS} FROM ({_ROWS})
        UNION ALL
        SELECT true, toUUID('{UUID(int=0)}'), false, {_NOTHING}
    )
    GROUP BY last, session_id
    HAVING last OR copies != 1 OR wanted != 1 OR found != expected
    ORDER BY last, session_id
"""  # noqa: S608 (a template of ours)
_HOURS = f"""
    SELECT toUnixTimestamp(hour), toDate(hour), sum(events), sum(rows)
    FROM (
        SELECT toDateTime(intDiv(toUnixTimestamp64Milli(ts), 3600000) * 3600) AS hour, count() AS events, 0 AS rows
        FROM `{{source}}` WHERE {{near}} GROUP BY hour
        UNION ALL
        SELECT hour, 0 AS events, count() AS rows FROM {TABLE} WHERE {{on}} GROUP BY hour
    )
    WHERE {{on}}
    GROUP BY hour
    ORDER BY hour
"""  # noqa: S608 (a template of ours)
_DAYS = "SELECT DISTINCT toDate(toDateTime(number * 3600)) AS day FROM hours ORDER BY day"
_OLDEST = "SELECT count(), toDate(toDateTime(intDiv(toUnixTimestamp64Milli(min(ts)), 1000))) FROM `{source}`"


class Hour(NamedTuple):
    """An hour with events in ui_events or rows in session_stats."""

    begins_at: int  # seconds since 1970; not a multiple of 3,600 for a row that no worker would write
    day: date  # partition of session_stats
    events: int  # in ui_events
    rows: int  # in session_stats

    @property
    def number(self) -> int:
        """Hours since 1970."""
        return self.begins_at // HOUR_SECONDS

    def __str__(self) -> str:
        """Format the beginning of the hour, in UTC."""
        return f"{datetime.fromtimestamp(self.begins_at, UTC):%Y-%m-%d %H:%M}"


class Values(NamedTuple):
    """The statistics of a row."""

    avg_latency_ms: int
    error_rate: np.float32
    abandonment_rate: np.float32
    events_count: int
    duration_seconds: int

    @classmethod
    def of_bits(cls, bits: tuple[int, ...]) -> "Values":
        """Make values from integers, floats from their bits: SQL compares the same bits."""
        latency, errors, abandoned, events, seconds = bits
        rates = np.array([errors, abandoned], np.uint32).view(np.float32)
        return cls(latency, rates[0], rates[1], events, seconds)

    def differing(self, other: "Values") -> tuple[str, ...]:
        """Return the columns that differ in any bit."""
        pairs = zip(self._fields, self, other, strict=True)
        return tuple(name for name, ours, theirs in pairs if np.asarray(ours).tobytes() != np.asarray(theirs).tobytes())


class Kind(enum.StrEnum):
    """Kind of a difference between session_stats and ui_events."""

    DIFFERING = "differing"  # the row has other values
    MISSING = "missing"  # no row, though there are events
    EXTRA = "extra"  # a row, though there are no events
    SPLIT = "split"  # more than one row


@dataclass(frozen=True, slots=True)
class Difference:
    """A session and hour whose row in session_stats isn't exactly the row computed from ui_events."""

    hour: Hour
    session_id: UUID
    copies: int
    """Number of rows in session_stats."""
    found: Values | None
    """Values of one of these rows; None without a row."""
    expected: Values | None
    """Values computed from ui_events; None without events."""

    @property
    def kind(self) -> Kind:
        """Kind of the difference."""
        if self.expected is None:
            return Kind.EXTRA
        if self.found is None:
            return Kind.MISSING
        return Kind.SPLIT if self.copies > 1 else Kind.DIFFERING

    @property
    def uncounted_events(self) -> int:
        """Number of events that the row hasn't counted; 0 for a split or an extra row."""
        if self.expected is None or self.copies > 1:
            return 0
        return self.expected.events_count - (self.found.events_count if self.found else 0)

    @property
    def lost_events(self) -> int:
        """Number of events that the row counts and ui_events lacks."""
        found, expected = (values.events_count if values else 0 for values in (self.found, self.expected))
        return max(0, found - expected)


class Audit:
    """Comparison of session_stats with its source table, hour by hour.

    The methods raise the driver's errors; wrap the calls in `pipeline.clickhouse.client.explained`.

    Args:
        client: connected; its default database has both tables, and it may SELECT from both.
        source: name of the table with the events.
    """

    def __init__(self, client: Any, source: str) -> None:
        self._client = client
        self._source = source

    def hours(self, day: date | None) -> list[Hour]:
        """Return the hours that either table has events or rows of, in order.

        Args:
            day: only the hours of this partition of session_stats, in the server's time zone; None for all hours.
        """
        for table in (TABLE, self._source):
            catch_up(self._client, table)
        on, near = "1", "1"
        if day:
            begins_ms = (
                day - _EPOCH
            ).days * _DAY_MS  # of the day in UTC; in another time zone the day begins less than a day away
            on = f"toDate(hour) = '{day}'"
            near = " AND ".join(
                f"ts {comparison} fromUnixTimestamp64Milli({begins_ms + days * _DAY_MS}, 'UTC')"
                for comparison, days in ((">=", -1), ("<", 2))
            )
        return [Hour(*row) for row in all_rows(self._client, _HOURS.format(source=self._source, on=on, near=near))]

    def days(self, hours: Collection[int]) -> tuple[date, ...]:
        """Return the partitions of session_stats that hours are of, in the server's time zone.

        Args:
            hours: numbers since 1970.
        """
        sent = {"name": "hours", "structure": [("number", "UInt32")], "data": [{"number": number} for number in hours]}
        return tuple(day for (day,) in all_rows(self._client, _DAYS, external_tables=[sent])) if hours else ()

    def oldest_day(self) -> date | None:
        """Return the first day with events; rows of earlier days can't be computed any more."""
        count, day = all_rows(self._client, _OLDEST.format(source=self._source))[0]
        return day if count else None

    def expired(self, hours: Collection[Hour]) -> frozenset[Hour]:
        """Return the hours that the TTL of either table has begun to expire: rows of them may be there or not."""
        begins = np.array([hour.begins_at for hour in hours], np.int64)
        gone = expired_times(self._client, self._source, "ts", begins * 1000)
        gone |= expired_times(self._client, TABLE, "hour", begins)
        return frozenset(hour for hour, expired in zip(hours, gone.tolist(), strict=True) if expired)

    def recomputed(self, hour: Hour) -> str:
        """Return a SELECT that computes the rows of an hour from its events; columns in the table's order."""
        return _ROWS.format(source=self._source, begins_at=hour.begins_at)

    def counts(self, table: str) -> dict[int, int]:
        """Return the number of rows of each hour in a table like session_stats, by the beginning of the hour."""
        query = f"SELECT toUnixTimestamp(hour), count() FROM {table} GROUP BY hour"  # noqa: S608 (a name of ours)
        return dict(all_rows(self._client, query))

    def recomputed_count(self, hour: Hour) -> int:
        """Return the number of rows that `recomputed` gives."""
        return int(all_rows(self._client, f"SELECT count() FROM ({self.recomputed(hour)})")[0][0])  # noqa: S608 (ours)

    def stored(self, hour: Hour) -> str:
        """Return a SELECT of the stored rows of an hour; columns in the table's order."""
        return f"SELECT {_NAMES} FROM {TABLE} WHERE hour = toDateTime({hour.begins_at})"  # noqa: S608 (names of ours)

    def differences(self, hour: Hour) -> Iterator[Difference]:
        """Yield the differences of an hour, ordered by session; read the iterator to its end.

        Raises:
            UnavailableError: the server ended the query before its result was whole; another attempt may succeed.
        """
        query = _DIFFERENCES.format(source=self._source, begins_at=hour.begins_at)
        for session_id, copies, found, wanted, expected in marked_rows(self._client, query):
            yield Difference(
                hour,
                session_id,
                copies,
                Values.of_bits(found) if copies else None,
                Values.of_bits(expected) if wanted else None,
            )
