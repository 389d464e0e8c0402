"""Results of checks, their grades, and the order of checks."""

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from pipeline.errors import ChimeraError, ConfigError, UnavailableError


class Grade(enum.StrEnum):
    """Grade of a finding."""

    OK = "ok"
    WARN = "warn"  # works, and a person should know
    FAIL = "fail"  # a worker doesn't start, or stores nothing


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One line of the examination."""

    check: str
    verdict: Grade
    detail: str
    mend: str = ""
    """What to do; empty if there is nothing to do, or the detail says it."""
    exit_code: int = 1
    """Exit code of the command, if this fails."""


Check = Callable[[], Iterable[CheckResult]]


def ok(check: str, detail: str) -> CheckResult:
    """Return the finding that all is well."""
    return CheckResult(check, Grade.OK, detail)


def warn(check: str, detail: str, mend: str = "") -> CheckResult:
    """Return the finding that a person should know of."""
    return CheckResult(check, Grade.WARN, detail, mend)


def fail(check: str, detail: str, mend: str = "") -> CheckResult:
    """Return the finding that a worker wouldn't work."""
    return CheckResult(check, Grade.FAIL, detail, mend)


def found_by(check: str, run: Check, mend: str = "") -> Iterator[CheckResult]:
    """Yield what a check finds; its failure is a finding, too.

    Args:
        check: name of the check.
        run: the check.
        mend: what to do if it fails, where its message doesn't say it.
    """
    try:
        yield from run()
    except UnavailableError as error:
        yield CheckResult(check, Grade.FAIL, str(error), "start the server, or correct its address", error.exit_code)
    except ConfigError as error:
        yield CheckResult(check, Grade.FAIL, str(error), mend, error.exit_code)
    except ChimeraError as error:
        yield fail(check, str(error), mend)


def exit_code_of(findings: Iterable[CheckResult]) -> int:
    """Return 78 if the configuration is wrong, else 69 if a server doesn't answer, else 1 if anything fails, else 0."""
    codes = {finding.exit_code for finding in findings if finding.verdict is Grade.FAIL}
    return max(codes, default=0)
