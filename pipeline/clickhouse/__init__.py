"""Everything that talks to ClickHouse: client, sink, migrations and checks."""
