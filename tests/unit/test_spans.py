"""Values of one buffer become a dictionary, whether few of them are distinct or all."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.columns import DictionaryColumn, Spans
from pipeline.columns.spans import _FEW, _SAMPLE

_VALUES = st.lists(st.binary(max_size=3), min_size=1, max_size=2 * _FEW)


@given(_VALUES, _VALUES, st.integers(0, 3 * _SAMPLE), st.integers(0, 2**32))
def test_few_values_are_encoded_as_many_are(usual: list[bytes], rare: list[bytes], rows: int, seed: int) -> None:
    """Codes and distinct values are those of the plain way, also if other values come behind the first rows."""
    rng = random.Random(seed)
    values = [rng.choice(usual) for _ in range(rows)] + rng.choices([*usual, *rare], k=rows // 8)
    found, wanted = Spans.of(values).encoded(), DictionaryColumn.encode(values)
    assert found.codes.tolist() == wanted.codes.tolist()
    assert found.values == wanted.values


@pytest.mark.parametrize("value", [b"", b"a", b"\0\0", b"a" * 300])
def test_rows_with_a_value_are_found(value: bytes) -> None:
    """Values that begin alike, or are of one length, are others."""
    values = [value, b"b", value + b"\0", value[:-1] + b"b", value]
    codes, found = Spans.of(values).codes_of([b"b", value])
    assert np.flatnonzero(found & (codes == 1)).tolist() == [row for row, each in enumerate(values) if each == value]
    assert found.tolist() == [each in {b"b", value} for each in values]
