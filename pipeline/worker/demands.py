"""Everything that the worker demands of one family before it starts: each check runs, whatever others find."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from pipeline.catalog import Catalog, Family
from pipeline.clickhouse.contract import check_tables
from pipeline.clickhouse.pinned_settings import check_user
from pipeline.clickhouse.rights import check_rights
from pipeline.clickhouse.table_checks import TABLE_CHECKS
from pipeline.config import ClickHouseSettings, Settings
from pipeline.decode.decoder import Decoder
from pipeline.errors import ChimeraError, ConfigError, UnavailableError, UnclearError
from pipeline.privacy.hashing import configured_hasher
from pipeline.privacy.sanitise import Sanitiser
from pipeline.producer.encode import Encoder
from pipeline.retry import pauses
from pipeline.schema.compatibility import problems
from pipeline.worker.fresh_group import check_group
from pipeline.worker.preflight import check_topics, check_windows

_PATIENCE_SECONDS = 10.0
_FIRST_PAUSE_SECONDS = 0.3


class Demand(NamedTuple):
    """Result of one check."""

    what: str
    problem: str
    """Explanation of what is missing; empty if nothing is."""


def demands(
    settings: Settings, family: Family, examples: Sequence[Mapping[str, Any]], *, offline: bool
) -> Iterator[Demand]:
    """Yield the result of each check.

    Args:
        settings: servers and group.
        family: its topics, table and schemas are checked.
        examples: events that have to be valid.
        offline: leave out the checks that ask a server.
    """
    alone = Catalog((family.topic, family.dead_letters), (family,), None)
    server = settings.clickhouse
    checks: list[tuple[str, Callable[[], object]]] = [
        ("schema versions are compatible", partial(_check_versions, family)),
        ("personal data is treated", partial(_sanitiser, settings, family)),
        (f"{len(examples)} example events become rows", partial(_check_examples, settings, family, examples)),
    ]
    if not offline:
        checks += [
            ("topics exist and may be used", partial(check_topics, settings.kafka, alone, None)),
            ("the user may write with the settings of inserts", partial(check_user, server)),
            ("the table fits the schema", partial(check_tables, server, [family])),
            *((check.holds, partial(check.run, server, [family.table])) for check in TABLE_CHECKS),
            ("the user may insert into the table", partial(_check_rights, server, family)),
            ("the deduplication window is wide enough", partial(check_windows, settings, alone)),
        ]
        if not settings.worker.allow_fresh_group:
            checks.append(("the group would store nothing twice", partial(check_group, settings, alone)))
    patience = _Patience()
    for what, check in checks:
        yield Demand(what, _problem(check, patience))


class _Patience:
    """Time that all checks together wait for servers that don't answer; the worker waits without limit."""

    def __init__(self) -> None:
        self._left = _PATIENCE_SECONDS

    def wait(self, seconds: float) -> bool:
        """Wait, and return True; return False at once when no time is left."""
        self._left -= seconds
        if self._left < 0:
            return False
        time.sleep(seconds)
        return True


def _problem(check: Callable[[], object], patience: _Patience) -> str:
    for pause in pauses(_FIRST_PAUSE_SECONDS, _PATIENCE_SECONDS):
        try:
            check()
        except (UnavailableError, UnclearError) as error:
            if not patience.wait(pause):
                return str(error)
        except ChimeraError as error:
            return str(error)
        else:
            return ""
    raise AssertionError("pauses have no end")


def _check_versions(family: Family) -> None:
    found = problems({family.name: family.schemas})
    if found:
        raise ConfigError("; ".join(map(str, found)))


def _check_rights(server: ClickHouseSettings, family: Family) -> None:
    check_rights(server, check_tables(server, [family]))


def _sanitiser(settings: Settings, family: Family) -> Sanitiser:
    return Sanitiser(family.schema, configured_hasher(settings.privacy))


def _check_examples(settings: Settings, family: Family, examples: Sequence[Mapping[str, Any]]) -> None:
    encoder = Encoder(family)
    values: list[bytes | None] = [encoder.encode(event).value for event in examples]
    for rejection in Decoder(family, sanitise=_sanitiser(settings, family)).decode(values).rejections:
        raise ConfigError(f"example {rejection.position + 1}: {rejection.reason}: {rejection.detail}")
