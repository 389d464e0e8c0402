"""The development stack, with its real servers."""

import pytest
from clickhouse_driver import Client

from pipeline.config import Settings
from pipeline.families import load_topics

pytestmark = pytest.mark.integration


def test_every_test_has_names_of_its_own(settings: Settings) -> None:
    """Database, group and topics carry the same unique part, and exist nowhere yet."""
    own = settings.clickhouse.database.removeprefix("test_")
    assert settings.kafka.group_id == f"test-{own}"
    assert all(topic.name.startswith(f"{own}.chimera.") for topic in load_topics(settings.topics.file))
    client = Client(settings.clickhouse.host, port=settings.clickhouse.native_port)
    assert (settings.clickhouse.database,) not in client.execute("SHOW DATABASES")
