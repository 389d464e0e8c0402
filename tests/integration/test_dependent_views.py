"""Materialized views on the worker's tables: a repeated insert reaches them once, or the worker doesn't start."""

import pytest
from clickhouse_driver import Client
from support.ingesting import ROWS, batch_of, values

from pipeline.catalog import load_catalog
from pipeline.clickhouse.dependent_views import check_views
from pipeline.clickhouse.sink import Sink
from pipeline.config import Settings
from pipeline.decode.decoder import Decoder
from pipeline.errors import HaltError
from pipeline.worker.done_before import located

pytestmark = pytest.mark.integration

_SELECT = "SELECT toDate(ts) AS day, count() AS events FROM ui_events GROUP BY day"
_WINDOW = "SETTINGS non_replicated_deduplication_window = 100"


def test_a_view_whose_target_remembers_no_tokens_is_refused(settings: Settings, client: Client) -> None:
    """The message names view, table, target and the statement that mends it; views on other tables don't matter."""
    client.execute("CREATE TABLE days (day Date, events UInt64) ENGINE=SummingMergeTree ORDER BY day")
    client.execute(f"CREATE MATERIALIZED VIEW counted TO days AS {_SELECT}")
    check_views(settings.clickhouse, ["episodes"])
    with pytest.raises(
        HaltError, match=r"view test_\w+\.counted .* reads from ui_events and fills test_\w+\.days \(Summing"
    ):
        check_views(settings.clickhouse, ["episodes", "ui_events"])
    client.execute("ALTER TABLE days MODIFY SETTING non_replicated_deduplication_window = 100")
    check_views(settings.clickhouse, ["ui_events"])


@pytest.mark.parametrize(
    ("engine", "refused"),
    [
        (f"SummingMergeTree ORDER BY day {_WINDOW}", False),
        ("SummingMergeTree ORDER BY day", True),
        ("Memory", True),
    ],
)
def test_a_view_with_a_table_of_its_own_is_checked_too(
    settings: Settings, client: Client, engine: str, refused: bool
) -> None:
    """An engine that remembers no tokens at all is refused."""
    client.execute(f"CREATE MATERIALIZED VIEW counted ENGINE={engine} AS {_SELECT}")
    if refused:
        with pytest.raises(HaltError, match=r"counted .* fills test_\w+\.\.inner"):
            check_views(settings.clickhouse, ["ui_events"])
    else:
        check_views(settings.clickhouse, ["ui_events"])


def test_a_repeated_insert_reaches_a_view_once(settings: Settings, client: Client) -> None:
    """Each day of the block is counted once, also if the same block is sent again."""
    client.execute(f"CREATE MATERIALIZED VIEW counted ENGINE=SummingMergeTree ORDER BY day {_WINDOW} AS {_SELECT}")
    family = load_catalog(settings).family("ui_events")
    records, sink = values(family), Sink(settings.clickhouse)
    columns = located(batch_of(family, records), Decoder(family).decode(records))
    for _ in range(3):
        sink.insert(family.table, columns, "token")
    sink.close()
    assert client.execute("SELECT sum(events) FROM counted") == [(ROWS,)]
