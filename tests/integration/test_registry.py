"""The registry client against a real registry."""

from pathlib import Path

import orjson
import pytest
from confluent_kafka.schema_registry import Schema as RegistrySchema
from confluent_kafka.schema_registry import SchemaReference, SchemaRegistryClient
from support.schema_registry import RegistryServer

from pipeline.config import RegistrySettings, load_settings
from pipeline.devstack.ports import free_port
from pipeline.errors import ConfigError, HaltError, UnavailableError
from pipeline.kafka.registry import SchemaRegistry, UnknownSchemaError
from pipeline.schema.versions import Schema, load_schemas
from pipeline.schema.writer_schema import UnresolvableError

pytestmark = pytest.mark.integration

_UNKNOWN_ID = 2**31 - 1
_JSON_SCHEMA = '{"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}'


@pytest.fixture
def schema() -> Schema:
    return load_schemas(load_settings().schemas.directory)["ui_events"][-1]


@pytest.fixture
def registry(schema_registry: RegistryServer) -> SchemaRegistry:
    return SchemaRegistry(RegistrySettings(url=schema_registry.url))


def test_a_schema_is_registered_once_and_found_again_by_its_id(
    registry: SchemaRegistry, schema: Schema, schema_registry: RegistryServer
) -> None:
    """Another client gets the same id, and by the id the schema with its bounds, as it was registered."""
    schema_id = registry.schema_id("chimera.once", schema)
    another = SchemaRegistry(RegistrySettings(url=schema_registry.url))
    assert another.schema_id("chimera.once", schema) == schema_id
    assert another.schema(schema_id) == orjson.loads(schema.file.read_bytes())
    confluent = SchemaRegistryClient({"url": schema_registry.url})
    assert confluent.get_versions("chimera.once-value") == [1]


def test_an_id_that_nobody_registered_is_unknown(registry: SchemaRegistry) -> None:
    """The registry's answer that it has no such schema is final: no retry."""
    with pytest.raises(UnknownSchemaError, match=str(_UNKNOWN_ID)):
        registry.schema(_UNKNOWN_ID)


def test_a_schema_that_is_no_avro_record_is_unknown(registry: SchemaRegistry, schema_registry: RegistryServer) -> None:
    """A JSON Schema has an id in the same registry, but never belongs to a record."""
    confluent = SchemaRegistryClient({"url": schema_registry.url})
    schema_id = confluent.register_schema("chimera.json-value", RegistrySchema(_JSON_SCHEMA, "JSON"))
    with pytest.raises(UnknownSchemaError, match=f"no Avro schema {schema_id}, but one of type JSON"):
        registry.schema(schema_id)


def test_a_schema_with_references_is_refused_by_that_name(
    registry: SchemaRegistry, schema_registry: RegistryServer
) -> None:
    """A schema that refers to another subject can't be used: the explanation says that references aren't supported."""
    confluent = SchemaRegistryClient({"url": schema_registry.url})
    money = '{"type": "record", "name": "Money", "fields": [{"name": "amount", "type": "long"}]}'
    confluent.register_schema("money-value", RegistrySchema(money, "AVRO"))
    paid = '{"type": "record", "name": "UiEvent", "fields": [{"name": "paid", "type": "Money"}]}'
    references = [SchemaReference("Money", "money-value", 1)]
    schema_id = confluent.register_schema("chimera.referring-value", RegistrySchema(paid, "AVRO", references))
    with pytest.raises(UnresolvableError, match="references, which aren't supported"):
        registry.schema(schema_id)


def test_a_schema_that_the_registry_refuses_halts(registry: SchemaRegistry, schema: Schema, tmp_path: Path) -> None:
    """A subject with a compatibility rule refuses an incompatible version; the message names the file."""
    confluent = SchemaRegistryClient({"url": registry._settings.url})
    registry.schema_id("chimera.strict", schema)
    confluent.set_compatibility("chimera.strict-value", level="BACKWARD")
    raw = orjson.loads(schema.file.read_bytes())
    raw["fields"].append({"name": "added", "type": "string"})
    (tmp_path / "ui_events.v1.avsc").write_bytes(orjson.dumps(raw))
    with pytest.raises(HaltError, match=r"ui_events\.v1\.avsc as chimera\.strict-value: "):
        registry.schema_id("chimera.strict", load_schemas(tmp_path)["ui_events"][0])


def test_a_path_that_is_no_registry_halts(schema_registry: RegistryServer) -> None:
    """HTTP's 404 from something else than a registry is no answer about a record."""
    registry = SchemaRegistry(RegistrySettings(url=f"http://127.0.0.1:{schema_registry.port}/nowhere"))
    with pytest.raises(HaltError, match="HTTP 404"):
        registry.schema(_UNKNOWN_ID)


def test_no_registry_is_unavailable(schema: Schema) -> None:
    """An absent registry is UnavailableError, for reading and for writing."""
    registry = SchemaRegistry(RegistrySettings(url=f"http://127.0.0.1:{free_port()}"))
    with pytest.raises(UnavailableError, match="not available"):
        registry.schema(1)
    with pytest.raises(UnavailableError, match="not available"):
        registry.schema_id("chimera.ui_events", schema)


def test_a_registry_needs_a_url() -> None:
    """The message names the missing setting."""
    with pytest.raises(ConfigError, match="CHIMERA_REGISTRY__URL"):
        SchemaRegistry(RegistrySettings(user="writer"))
