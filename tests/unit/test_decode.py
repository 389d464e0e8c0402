"""The columnar decoder agrees with its oracle on any schema and any bytes, and treats each record independently."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from support import oracle
from support.avro_cases import Case, cases
from support.both_paths import PATHS, path

import pipeline.decode.validate
from pipeline.decode.cursor import Cursor
from pipeline.decode.decoder import Decoder
from pipeline.errors import Reason
from pipeline.schema.framing import frame_single_object

pytestmark = pytest.mark.untraced  # other tests reach the same lines, and the tracer doubles the time of many examples

_PROFILE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def _framed(case: Case) -> list[bytes | None]:
    return [frame_single_object(case.writer.fingerprint, body) for body in case.bodies]


def _assert_agreement(case: Case, names: Sequence[str] = PATHS) -> None:
    """Compare verdicts, values and reasons of these ways to decode with the oracle's.

    fastavro reads all strings before the oracle checks a value, and the oracle checks an item before it looks at the
    next one, so it may report another of several faults.
    """
    lists = any(field.items for field in case.family.schema.fields)
    expected = [oracle.read(case.writer.raw, case.family.schema, body) for body in case.bodies]
    for name in names:
        with path(name):
            decoded = Decoder(case.family).decode(_framed(case))
        assert oracle.rows_of(decoded) == [row for row in expected if isinstance(row, dict)]
        assert decoded.positions.tolist() == [at for at, row in enumerate(expected) if isinstance(row, dict)]
        reasons = {rejection.position: rejection.reason for rejection in decoded.rejections}
        for at, verdict in enumerate(expected):
            if isinstance(verdict, Reason):
                assert reasons[at] == verdict or verdict is Reason.INVALID_UTF8 or lists


@settings(_PROFILE, max_examples=250)
@given(cases(corrupt=False))
def test_any_record_of_any_schema_becomes_the_row_of_the_oracle(case: Case) -> None:
    """Rows, values and reasons agree, for records of the newest version and of an older one."""
    _assert_agreement(case)


@settings(_PROFILE, max_examples=250)
@given(cases(corrupt=True))
def test_any_damaged_record_gets_the_verdict_of_the_oracle(case: Case) -> None:
    """Flipped, cut, inserted or lying bytes are rejected by both, or read as the same values by both."""
    _assert_agreement(case)


@settings(_PROFILE, max_examples=100)
@given(cases(corrupt=True))
def test_records_are_decoded_independently(case: Case) -> None:
    """The boundaries of a batch change neither verdicts nor reasons nor values."""
    values = _framed(case)
    for name in PATHS:
        with path(name):
            decoder = Decoder(case.family)
            together = decoder.decode(values)
            alone = [decoder.decode([value]) for value in values]
        assert oracle.rows_of(together) == [row for rows in alone for row in oracle.rows_of(rows)]
        assert together.rejections == tuple(
            rejection._replace(position=at) for at, rows in enumerate(alone) for rejection in rows.rejections
        )


def _nothing(*_: Any) -> None:
    """Replace a check."""


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize(
    ("where", "check"),
    [
        pytest.param(pipeline.decode.validate, "_check_bounds", id="bounds"),
        pytest.param(pipeline.decode.validate._Strings, "refuse", id="forms-and-sets"),
        pytest.param(Cursor, "finish", id="trailing-bytes"),
    ],
)
def test_the_properties_notice_a_missing_check(
    monkeypatch: pytest.MonkeyPatch, where: Any, check: str, name: str
) -> None:
    """Without one check, the decoder and its oracle disagree."""

    @settings(_PROFILE, max_examples=300, database=None, phases=[Phase.generate], report_multiple_bugs=False)
    @given(cases(corrupt=True))
    def agree(case: Case) -> None:
        _assert_agreement(case, [name])

    monkeypatch.setattr(where, check, _nothing)
    with pytest.raises((AssertionError, KeyError)):
        agree()
