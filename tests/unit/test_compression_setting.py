"""Blocks for a server on another machine are compressed, unless a setting says otherwise."""

import pytest

from pipeline.config import ClickHouseSettings


@pytest.mark.parametrize(
    ("host", "compression", "compressed"),
    [
        ("127.0.0.1", "auto", False),
        ("127.8.9.1", "auto", False),
        ("::1", "auto", False),
        ("localhost", "auto", False),
        ("LOCALHOST.", "auto", False),
        ("10.0.0.1", "auto", True),
        ("localhost.example.org", "auto", True),
        ("clickhouse", "auto", True),
        ("clickhouse", "none", False),
        ("localhost", "lz4", True),
    ],
)
def test_loopback_needs_no_compression(host: str, compression: str, *, compressed: bool) -> None:
    """By address or by name."""
    assert ClickHouseSettings(host=host, compression=compression).compressed is compressed
