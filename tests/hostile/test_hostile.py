"""The hostile cases against a real worker."""

from pathlib import Path

import pytest

from hostile.run import run
from pipeline.config import Settings

pytestmark = pytest.mark.integration


def test_hostile_records_are_rejected_with_their_reason_and_their_neighbours_stored(
    settings: Settings, environ: dict[str, str], tmp_path: Path
) -> None:
    """All cases get their verdicts; a family's small records share one micro-batch."""
    outcome = run(settings, environ, tmp_path)
    assert outcome.wrong == []
    assert outcome.lost == []
    assert outcome.cases > 1000
    assert {family for family, inserts in outcome.inserts.items() if inserts > 1} <= {"ui_events"}
