"""`chimera storage`: retention and tiers, single days, compression, projections, and queries of cold days."""

from pipeline.cli.storage import days, form, retention
from pipeline.cli.storage.group import storage

__all__ = ["days", "form", "retention", "storage"]
