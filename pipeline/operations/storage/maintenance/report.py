"""Report of the maintenance: a section for each check, with findings; some have statements that mend them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pipeline.clickhouse.client import connect, explained
from pipeline.clickhouse.table_lock import TableLock
from pipeline.config import ClickHouseSettings
from pipeline.errors import HaltError, UnclearError
from pipeline.operations.storage.tables import StoredTable

_LONGEST_SECONDS = 6 * 3600.0


class Period(StrEnum):
    """Interval at which the specification wants a check."""

    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a person should know, or that a statement mends."""

    text: str
    table: str = ""
    figures: dict[str, Any] = field(default_factory=dict)
    urgent: bool = False
    """True if the pipeline or its disks are in danger."""
    statement: str | None = None
    """Statement that mends it, without risk for rows that are to be kept."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The tables to look at, and how to reach them."""

    settings: ClickHouseSettings
    client: Any
    tables: tuple[StoredTable, ...]


@dataclass(frozen=True, slots=True)
class Check:
    """One item of the specification's lists.

    Args:
        name: for programs.
        title: for people.
        period: interval.
        find: yields the findings; it changes nothing.
    """

    name: str
    title: str
    period: Period
    find: Callable[[Subject], Iterable[Finding]]


@dataclass(frozen=True, slots=True)
class Section:
    """Findings of a check; or the reason why there are none."""

    check: Check
    findings: tuple[Finding, ...]
    unavailable: str = ""


def look(subject: Subject, checks: Iterable[Check]) -> Iterator[Section]:
    """Yield the section of each check; nothing is changed. A check that the server refuses says so in its section.

    Raises:
        UnavailableError: the server doesn't answer.
    """
    for check in checks:
        try:
            with explained(subject.settings):
                findings = tuple(check.find(subject))
        except (HaltError, UnclearError) as error:
            yield Section(check, (), str(error))
        else:
            yield Section(check, findings)


def run(settings: ClickHouseSettings, finding: Finding) -> None:
    """Run the statement of a finding, to its end. No replay or repair of the table runs meanwhile.

    Raises:
        TakenError: a replay or a repair of the table is under way.
        HaltError, UnavailableError: the server refuses, or doesn't answer.
    """
    assert finding.statement is not None
    patient = settings.model_copy(update={"query_timeout_seconds": _LONGEST_SECONDS})
    with explained(settings), TableLock(settings, finding.table), connect(patient) as client:
        client.execute(finding.statement, settings={"mutations_sync": 2, "max_execution_time": 0})
