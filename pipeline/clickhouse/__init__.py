"""ClickHouse: client, sink, migrations, access rights, and checks of the tables."""

import os

# The driver would fill two tables with all dates of four centuries: 0.13 s and 30 MB. No date is in "0", so that each
# is computed when it is first needed. The driver reads the variable (with this spelling) when it is imported.
os.environ.setdefault("CLICKHOUSE_DRIVER_LASY_DATE_LUT", "0")
