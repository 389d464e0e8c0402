"""Lineage: compares the log, the tables and the dead letters by the coordinates of records.

`verify` makes the comparison. It asks for the `extents` of the log, the `stored` rows and the `lettered` offsets, and
has the records of the offsets that are in neither read and judged by `missing`. `report` has the results. No module
of these changes anything in Kafka or ClickHouse.

`replay` fills a table from one of the `sources`, which `opening` opens: `family_log`, `other_topic`, `dump_file` or
`avro_file`. `plan` finds out which `spans` of it lack rows, `chunks` gathers their records, `filler` inserts the rows,
and `pace` limits the speed. `rewrite` makes days anew in a `staging` table, and swaps them in.
"""
