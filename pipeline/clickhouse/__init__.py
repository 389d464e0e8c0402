"""ClickHouse: client, sink, migrations, access rights, and checks of the tables."""
