"""Queries of the specification, under the name that the documentation has given from the start."""

from pipeline.clickhouse.queries import load_queries

__all__ = ["load_queries"]
