"""`chimera maintenance` on a real server: it finds what is wrong, and mends it when it is told to."""

from typing import Any

import pytest
from clickhouse_driver import Client
from support.commands import Chimera, command

from pipeline.config import Settings

pytestmark = pytest.mark.integration

_INSERT = """
INSERT INTO ui_events (ts, session_id, commit_sha, event_type, latency_ms, user_agent, metadata, _offset)
SELECT now64(3, 'UTC') - INTERVAL {age} DAY, generateUUIDv4(), repeat('0', 40), concat('e', toString(number % 20000)),
    number % 1000, 'Firefox 144', '{{}}', number
FROM numbers({rows}) SETTINGS insert_allow_materialized_columns = 1
"""
_CONTENT = "SELECT count(), sum(cityHash64(*)), sum(_offset) FROM ui_events WHERE ts > now() - INTERVAL 1000 DAY"
_SECRET = "someone@example.com"


@pytest.fixture
def chimera(settings: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Chimera:
    """Run `chimera maintenance …` in this process."""
    del settings
    return command(capsys, monkeypatch, "maintenance")


def _findings(facts: dict[str, Any], check: str, table: str = "ui_events") -> list[dict[str, Any]]:
    (section,) = [each for each in facts["sections"] if each["check"] == check]
    assert section["unavailable"] is None
    return [each for each in section["findings"] if each["table"] == table]


def _neglect(settings: Settings, client: Client) -> None:
    """Leave many parts and a day past its retention, and ask slow questions."""
    client.execute("SYSTEM STOP MERGES ui_events")
    client.execute(_INSERT.format(age=3, rows=120_000))
    for _ in range(10):
        client.execute(_INSERT.format(age=3, rows=10))
    client.execute(_INSERT.format(age=1100, rows=7))
    with Client("127.0.0.1", port=settings.clickhouse.native_port, database=settings.clickhouse.database) as person:
        person.execute(f"SELECT sleepEachRow(0.6) FROM ui_events WHERE metadata != '{_SECRET}' LIMIT 1")
        person.execute(
            "SELECT count() FROM ui_events WHERE session_id = toUUID('12345678-0000-0000-0000-000000000000')"
        )
        person.execute("SYSTEM FLUSH LOGS")


def test_maintenance_reports_and_mends(settings: Settings, client: Client, chimera: Chimera) -> None:
    """Days past the retention, many parts, slow queries, unused indexes, growth, types; what is kept stays the same."""
    _neglect(settings, client)
    content = client.execute(_CONTENT)
    reported = chimera("--json")
    facts = reported.facts
    assert {section["check"]: section["period"] for section in facts["sections"]} == {
        **dict.fromkeys(("past_retention", "parts", "compression", "slow_queries"), "daily"),
        **dict.fromkeys(("statistics", "indexes", "growth"), "weekly"),
        **dict.fromkeys(("schema_review", "performance", "capacity"), "monthly"),
    }
    undeclared, past = _findings(facts, "past_retention")
    assert ("storage apply" in undeclared["text"], past["figures"]["rows"]) == (True, 7)
    assert [each["figures"]["parts"] for each in _findings(facts, "parts")] == [11]
    # On a busy machine, other queries are slow too.
    (slow,) = [each for each in _findings(facts, "slow_queries") if "sleepEachRow" in each["text"]]
    assert ("filter by the time column" in slow["text"], slow["figures"]["runs"]) == (True, 1)
    assert _SECRET not in reported.stdout
    unused = {each["figures"].get("index") for each in _findings(facts, "indexes")}
    assert ("commit_sha_bloom" in unused, "session_id_bloom" in unused) == (True, False)
    assert _findings(facts, "growth")[0]["figures"]["rows"] == 120_107
    assert client.execute(_CONTENT) == content
    client.execute("SYSTEM START MERGES ui_events")
    ran = chimera("--execute").stdout
    assert "  - ran: `ALTER TABLE ui_events DROP PARTITION ID" in ran
    assert "statements ran." in ran
    assert client.execute(_CONTENT) == content
    after = chimera("--json").facts
    assert [each["statement"] for name in ("past_retention", "parts") for each in _findings(after, name)] == [None]
    texts = " ".join(each["text"] for each in _findings(after, "schema_review"))
    assert "latency_ms UInt32: its greatest value is 999; UInt16 would do" in texts
    assert "event_type LowCardinality(String): about 20," in texts


def test_a_period_has_its_own_checks(client: Client, chimera: Chimera) -> None:
    """Each period reports its own list, as Markdown."""
    del client
    daily = chimera("daily")
    assert (daily.returncode, "## Parts and merges (daily)" in daily.stdout) == (0, True)
    assert "weekly" not in daily.stdout
