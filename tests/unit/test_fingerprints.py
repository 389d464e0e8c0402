"""Frames of other Avro libraries: each library's fingerprint is known, and its events become rows."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from support import oracle
from support.decoding import BODY, FAMILY, Known

from pipeline.catalog import load_catalog
from pipeline.cli.schemas import schemas
from pipeline.config import Settings
from pipeline.decode.decoder import Decoder
from pipeline.dlq.content import Reader
from pipeline.errors import Reason
from pipeline.schema.framing import frame_confluent, frame_single_object

_ROOT = Path(__file__).parents[2]
_PRODUCERS = _ROOT / "tests" / "fixtures" / "producers"
_LIBRARIES = {
    "go": "Go: hamba/avro",
    "goavro": "Go: goavro",
    "java": "Avro: Java, JavaScript, fastavro",
    "javascript": "Avro: Java, JavaScript, fastavro",
    "python": "Python: avro",
    "rust": "Rust: apache-avro",
}
_CATALOG = load_catalog(Settings())


def _records(library: str, file: str) -> dict[str, bytes]:
    texts = json.loads((_PRODUCERS / library / file).read_text(encoding="utf-8"))
    return {family: bytes.fromhex(text) for family, text in texts.items()}


@pytest.mark.parametrize("file", ["records.json", "former.json"])
@pytest.mark.parametrize("library", _LIBRARIES)
def test_an_event_that_a_library_framed_becomes_its_row(library: str, file: str) -> None:
    """All families' events, made from the shipped schemas or from their former files, become the same rows."""
    records, wanted = _records(library, file), _records("java", "records.json")
    assert set(records) == {family.name for family in _CATALOG.families}
    for name, record in records.items():
        rows = Decoder(_CATALOG.family(name)).decode([record, wanted[name]])
        assert not rows.rejections
        first, second = oracle.rows_of(rows)
        assert first == second
        assert Reader(_CATALOG.family(name)).read(record).ends == ""


@pytest.mark.parametrize("library", _LIBRARIES)
def test_each_library_is_named_beside_its_fingerprint(library: str) -> None:
    """The list of fingerprints names the library that computes each."""
    for name, record in _records(library, "records.json").items():
        assert _LIBRARIES[library] in _CATALOG.family(name).schema.fingerprints[record[2:10]]


def test_fingerprints_of_published_versions_stay() -> None:
    """The canonical fingerprint of each shipped version is the one that producers use already."""
    assert {family.name: family.schemas[0].fingerprint.hex() for family in _CATALOG.families} == {
        "bench_runs": "f0322c5d5a9d9ecc",
        "deployments": "9b4c0e0171d7db73",
        "episodes": "733a19d02b983ae5",
        "llm_events": "305c33bef11249c8",
        "ui_events": "6429b3582f178e41",
        "watcher_runs": "9d31c57e6793031b",
    }


def test_no_attribute_of_a_shipped_schema_is_a_word_of_avros_own() -> None:
    """A library that keeps Avro's words in a canonical form keeps none of our attributes."""
    words = {"namespace", "fields", "items", "size", "symbols", "values", "order", "logicalType", "precision", "scale"}
    for family in _CATALOG.families:
        assert not any(words & set(field) for field in family.schema.raw["fields"])


def test_the_command_and_the_docs_list_all_fingerprints() -> None:
    """`chimera schemas fingerprints` and the table in docs/producing.md have every fingerprint of every version."""
    listed = CliRunner().invoke(schemas, ["fingerprints"], catch_exceptions=False).output
    rows = re.findall(r"^(\w+) +v(\d+) +([0-9a-f]{16})  (.+)$", listed, re.MULTILINE)
    table = (_ROOT / "docs" / "producing.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| (\w+) \| v(\d+) \| `([0-9a-f]{16})` \| (.+) \|$", table, re.MULTILINE)
    assert documented == rows
    assert {octets for _, _, octets, _ in rows} == {
        known.hex() for family in _CATALOG.families for schema in family.schemas for known in schema.fingerprints
    }


def test_an_unknown_fingerprint_is_named_beside_the_known_ones() -> None:
    """A dead letter says which fingerprint its record had and which ones are known."""
    records = [frame_single_object(b"\1" * 8, BODY), frame_single_object(b"\2" * 8, BODY)]
    rejections = Decoder(FAMILY).decode(records).rejections
    known = ", ".join(f"{octets.hex()} (v1)" for octets in FAMILY.schema.fingerprints)
    assert [(rejection.reason, rejection.detail) for rejection in rejections] == [
        (Reason.UNKNOWN_SCHEMA, f"fingerprint:{digits * 8} is unknown; known are {known}") for digits in ("01", "02")
    ]


@pytest.mark.parametrize(
    ("registry", "answer"), [(None, "no registry is set to ask"), (Known(), "7")], ids=["none", "one"]
)
def test_an_unknown_schema_id_is_named_with_the_registrys_answer(registry: Known | None, answer: str) -> None:
    """A dead letter says which schema id its record had, and what the registry says about it."""
    [rejection] = Decoder(FAMILY, registry).decode([frame_confluent(7, BODY)]).rejections
    assert (rejection.reason, rejection.detail) == (Reason.UNKNOWN_SCHEMA, f"id:7 is unknown: {answer}")
