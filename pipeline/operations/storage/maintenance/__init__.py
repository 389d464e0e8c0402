"""Maintenance: the specification's daily, weekly and monthly lists, as checks with findings and their remedies."""

from pipeline.operations.storage.maintenance import daily, monthly, weekly
from pipeline.operations.storage.maintenance.report import Check, Finding, Period, Section, look, run

CHECKS: tuple[Check, ...] = (*daily.CHECKS, *weekly.CHECKS, *monthly.CHECKS)
"""All checks, in the order of the report."""

__all__ = ["CHECKS", "Check", "Finding", "Period", "Section", "look", "run"]
