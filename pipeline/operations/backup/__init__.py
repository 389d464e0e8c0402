"""Backups: ClickHouse's own BACKUP and RESTORE, with the offsets that tie a backup to the log.

`create` notes the committed offsets, then has the server make a backup at the `destination`; `manifest` keeps what is
known of each one, in a table that is part of every backup. `figures` are counts and checksums, which `verify` compares
in a scratch database. `restore` brings tables back, `prune` removes backups that no kept one needs, and `newest` tells
monitoring about the last one. `operations` runs the server's statements and follows them.

`recovery` goes to any moment of the last days: `moment` finds its offsets and the backup to begin with, rows at or
above the offsets are deleted, the rest is filled from the log by `pipeline.operations.lineage`, and `sessions` brings
session_stats in line.
"""
