"""Plan of a recovery: the offsets of the moment, and the backup to begin with."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipeline.catalog import Catalog
from pipeline.config import Settings
from pipeline.operations.backup.manifest import Manifest
from pipeline.operations.backup.moment import MomentCut, Start, choose, cuts_at
from pipeline.operations.backup.restore import DoublesError, tables_of


@dataclass(frozen=True, slots=True)
class RecoveryPlan:
    """A recovery that was checked, and can be made.

    Args:
        time: the moment, exclusive.
        cuts: its offsets by family.
        start: backup to begin with.
        into: database that gets the tables.
        resumed: True if it goes on with one that was killed.
        exchanging: True if some or all recovered tables are in place: `into` then has tables that were live before.
    """

    time: datetime
    cuts: Mapping[str, MomentCut]
    start: Start
    into: str
    resumed: bool
    exchanging: bool = False

    def check_not_exchanged(self) -> None:
        """Check that the database has no tables that were live before the recovery.

        Raises:
            DoublesError: it has them, and a recovery would change them.
        """
        if self.exchanging:
            raise DoublesError(
                f"database {self.into} has the tables of before a recovery in place to {self.time.isoformat()}; "
                f"nothing was changed: name another database with --into, or drop this one: DROP DATABASE {self.into}"
            )

    @property
    def to_read(self) -> int:
        """Number of offsets between the backup and the moment."""
        return sum(self.follows(family) for family in self.cuts)

    def follows(self, family: str) -> int:
        """Number of these offsets in the topic of a family."""
        first = self.firsts(family)
        return sum(max(0, end - first[number]) for number, end in self.cuts[family].ends.items())

    def firsts(self, family: str) -> dict[int, int]:
        """Offsets of a family's topic below which the backup has all rows, by partition."""
        noted = self.start.record.noted.get(family)
        return {number: noted.offsets.get(number, 0) if noted else 0 for number in self.cuts[family].ends}


def plan_recovery(settings: Settings, catalog: Catalog, time: datetime, into: str, name: str = "") -> RecoveryPlan:
    """Find the offsets of a moment and the backup to begin with; changes nothing.

    Args:
        settings: both servers.
        catalog: families.
        time: the moment, exclusive; not in the future.
        into: database that gets the tables.
        name: backup to begin with; empty for the best one.

    Raises:
        UnreachableError: no backup and no log lead to the moment.
        UnavailableError, HaltError: a server doesn't answer, or refuses.
    """
    manifest = Manifest(settings.clickhouse)
    last = manifest.restore_of(into)
    same = last.get("to") == time.isoformat() and bool(tables_of(settings.clickhouse, into))
    resumed = same and name in {"", last["backup"]}
    cuts = cuts_at(settings, catalog, time, known=resumed)
    if resumed:
        kept = {family: _kept(cut, last["cuts"][family]) for family, cut in cuts.items()}
        start = choose(manifest.records(), kept, last["backup"])
        exchanging = last["step"] in {"exchanging", "exchanged"}
        return RecoveryPlan(time, kept, start, into, resumed=True, exchanging=exchanging)
    return RecoveryPlan(time, cuts, choose(manifest.records(), cuts, name), into, resumed=False)


def _kept(cut: MomentCut, facts: Mapping[str, Any]) -> MomentCut:
    """Return the cut that an earlier run has kept; the log's begin is today's."""
    return MomentCut(
        cut.topic, facts["topic_id"], {int(number): end for number, end in facts["ends"].items()}, cut.begins
    )
