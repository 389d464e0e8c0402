"""docs/asyncapi.yaml is what `chimera asyncapi` prints, and a valid AsyncAPI document."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from pipeline.catalog import load_catalog
from pipeline.cli.asyncapi_document import as_yaml, document
from pipeline.config import Settings

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docs/asyncapi.yaml"
_SCHEMA = json.loads((ROOT / "tests/fixtures/asyncapi/3.0.0.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def checked_in() -> dict[str, Any]:
    """The document in docs/."""
    read: dict[str, Any] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return read


def test_the_checked_in_document_is_that_of_today() -> None:
    """After a change of topics.yaml or of a schema, run `chimera asyncapi > docs/asyncapi.yaml`."""
    assert FILE.read_text(encoding="utf-8") == as_yaml(document(load_catalog(Settings())))


def test_the_document_is_valid(checked_in: dict[str, Any]) -> None:
    """By the specification's own JSON schema, with the bindings for Kafka and the Avro schemas."""
    assert [error.message for error in Draft7Validator(_SCHEMA).iter_errors(checked_in)] == []


def test_every_topic_and_every_schema_is_in_it(checked_in: dict[str, Any]) -> None:
    """Each reference leads to a message, and each message has its .avsc."""
    catalog = load_catalog(Settings())
    assert list(checked_in["channels"]) == [topic.name for topic in catalog.topics]
    messages = checked_in["components"]["messages"]
    for family in catalog.families:
        for schema in family.schemas:
            assert messages[f"{family.name}.v{schema.version}"]["payload"]["schema"] == schema.raw
        named = checked_in["channels"][family.topic.name]["messages"].values()
        assert {each["$ref"].rpartition("/")[2] for each in named} <= messages.keys()


def _no_partitions(document: Any) -> None:
    document["channels"]["chimera.ui_events"]["bindings"]["kafka"]["partitions"] = 0


def _other_action(document: Any) -> None:
    document["operations"]["store_ui_events"]["action"] = "take"


def _nameless_field(document: Any) -> None:
    del document["components"]["messages"]["ui_events.v1"]["payload"]["schema"]["fields"][0]["name"]


@pytest.mark.parametrize("spoil", [_no_partitions, _other_action, _nameless_field])
def test_the_validation_notices_a_fault(checked_in: dict[str, Any], spoil: Callable[[Any], None]) -> None:
    """The schema looks into bindings, operations and Avro."""
    wrong = copy.deepcopy(checked_in)
    spoil(wrong)
    assert list(Draft7Validator(_SCHEMA).iter_errors(wrong))
