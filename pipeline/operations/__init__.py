"""Tools for those who run the pipeline: checks, a monitor, storage for years, backups."""
