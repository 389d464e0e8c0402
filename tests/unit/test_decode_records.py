"""Records of the newest version: real events with every damage, and the form of columns."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from support import oracle
from support.avro_cases import encode, make_family, record
from support.decoding import FAMILY, assert_as_expected, cuts, flips, good

from pipeline.catalog import load_catalog
from pipeline.config import Settings
from pipeline.decode.decoder import Decoder
from pipeline.producer.encode import Encoder
from pipeline.schema.framing import SINGLE_OBJECT_HEADER_BYTES, frame_single_object

CATALOG = load_catalog(Settings())
EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@pytest.mark.parametrize(
    ("pattern", "form"),
    [
        pytest.param("^[0-9a-f]{8}$", "V8", id="hexadecimal"),
        pytest.param("^[a-]{1}$", "V1", id="letter-and-dash"),
        pytest.param("^[^a]{2}$", None, id="negated"),
        pytest.param("^[aĀ]{2}$", None, id="beyond-ascii"),
        pytest.param("^[a-z]{65}$", None, id="long"),
        pytest.param("^[a-z]{1,3}$", None, id="of-several-lengths"),
    ],
)
def test_strings_of_one_class_and_length_make_an_array(pattern: str, form: str | None) -> None:
    """Other strings stay dictionary-encoded; both forms accept exactly the texts that match and have no NUL."""
    family = make_family([record([{"name": "a", "type": "string", "pattern": pattern}])])
    texts = [chr(number) * length for number in range(300) for length in (1, 2, 8, 65)] + ["a-", "Āa", "0123abcd"]
    values = [frame_single_object(family.schema.fingerprint, encode(family.schema.raw, {"a": text})) for text in texts]
    rows = Decoder(family).decode(values)
    assert getattr(rows.columns["a"], "dtype", None) == (np.dtype(form) if form else None)
    assert [texts[at] for at in rows.positions] == [
        text for text in texts if re.fullmatch(pattern, text) and "\0" not in text
    ]


@pytest.mark.untraced  # other tests reach the same lines, and the tracer doubles its time
@pytest.mark.parametrize("family", CATALOG.families, ids=lambda family: family.name)
def test_real_and_damaged_events_get_the_verdict_of_the_oracle(family: Any) -> None:
    """Examples of each family decode to their values; the oracle agrees about every cut and every flipped bit."""
    lines = (EXAMPLES / f"{family.name}.jsonl").read_bytes().splitlines()
    encoder = Encoder(family)
    whole = [encoder.encode(orjson.loads(line)).value[SINGLE_OBJECT_HEADER_BYTES:] for line in lines]
    bodies = [*whole, *cuts(whole[0]), *flips(whole[0])]
    rows = Decoder(family).decode([frame_single_object(family.schema.fingerprint, body) for body in bodies])
    expected = [oracle.read(family.schema.raw, family.schema, body) for body in bodies]
    assert all(isinstance(row, dict) for row in expected[: len(whole)])
    assert_as_expected(rows, expected)


@pytest.mark.parametrize("values", [[], [None, b"?"]], ids=["no-records", "no-valid-records"])
def test_columns_have_their_form_even_without_rows(values: list[bytes | None]) -> None:
    """Empty columns cover all fields of the newest schema, in its order and with their usual types."""
    decoder = Decoder(FAMILY)
    empty, one = decoder.decode(values).columns, decoder.decode([good()]).columns
    assert list(empty) == list(one) == list(FAMILY.schema.by_name)
    assert [getattr(column, "dtype", type(column)) for column in empty.values()] == [
        getattr(column, "dtype", type(column)) for column in one.values()
    ]
