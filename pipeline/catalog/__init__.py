"""The catalog: topics and event families, read from topics.yaml and the schemas that it refers to."""

from pipeline.catalog.load import load_catalog
from pipeline.catalog.model import DEAD_LETTERS, BatchPolicy, Catalog, Family, RollupSpec, RowRetention, TopicSpec
from pipeline.catalog.topics_file import load_topics

__all__ = [
    "DEAD_LETTERS",
    "BatchPolicy",
    "Catalog",
    "Family",
    "RollupSpec",
    "RowRetention",
    "TopicSpec",
    "load_catalog",
    "load_topics",
]
