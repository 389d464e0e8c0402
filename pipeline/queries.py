"""Queries of the specification: `load_queries`, under the name that has been documented from the start."""

from pipeline.clickhouse.queries import load_queries

__all__ = ["load_queries"]
