"""The AsyncAPI document of the topics, made from topics.yaml and the .avsc files."""

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import yaml

from pipeline.catalog import Catalog, Family, TopicSpec
from pipeline.dlq.headers import ATTEMPTS, HEADER_PREFIX, REASON
from pipeline.errors import Reason
from pipeline.schema.versions import Schema

ASYNCAPI = "3.0.0"
"""Version of the specification that the document follows."""

_AVRO = "application/vnd.apache.avro+json;version=1.9.0"
_CONTENT = "application/vnd.apache.avro"
_BINDING = "0.5.0"
_ABOUT = (
    "Topics of the Muse Protocol's event pipeline, from Kafka to ClickHouse. Values are Avro, framed as Avro "
    "single-object (C3 01, then the schema's CRC-64-AVRO fingerprint) or, with a schema registry, as Confluent does. "
    "docs/producing.md is the whole contract for producers. Bounds and closed sets are in the schemas, as min, max, "
    "pattern, one_of and max_length."
)
_UNDERSTOOD = {"cleanup.policy", "retention.ms", "max.message.bytes"}  # by the binding; others are in the description


def document(catalog: Catalog) -> dict[str, Any]:
    """Return the document: a channel for each topic, a message for each version of each schema."""
    families = {family.topic.name: family for family in catalog.families}
    rejected = {family.dead_letters.name: family for family in catalog.families}
    channels = {}
    for topic in catalog.topics:
        if topic.name in families:
            channels[topic.name] = _family_channel(families[topic.name])
        elif topic.name in rejected:
            channels[topic.name] = _dead_letters(rejected[topic.name])
        else:
            channels[topic.name] = _channel(topic, _state_text(topic), {})
    return {
        "asyncapi": ASYNCAPI,
        "info": {"title": "Chimera", "version": version("chimera-pipeline"), "description": _ABOUT},
        "defaultContentType": _CONTENT,
        "channels": channels,
        "operations": dict(_operations(catalog)),
        "components": {"messages": {_name(schema): _message(family, schema) for family, schema in _schemas(catalog)}},
    }


def as_yaml(described: dict[str, Any]) -> str:
    """Write the document as YAML, with keys in their order."""
    text: str = yaml.safe_dump(described, sort_keys=False, allow_unicode=True, width=120)
    return text


def _schemas(catalog: Catalog) -> Iterator[tuple[Family, Schema]]:
    return ((family, schema) for family in catalog.families for schema in family.schemas)


def _name(schema: Schema) -> str:
    return f"{schema.family}.v{schema.version}"


def _reference(*path: str) -> dict[str, str]:
    return {"$ref": "/".join(["#", *(part.replace("~", "~0").replace("/", "~1") for part in path)])}


def _family_channel(family: Family) -> dict[str, Any]:
    text = (
        f"Events of the family {family.name}, keyed by {family.key}; each becomes a row of the table {family.table} "
        "or a dead letter. Records of every version are accepted; they are resolved to the newest."
    )
    messages = {_name(schema): _reference("components", "messages", _name(schema)) for schema in family.schemas}
    return _channel(family.topic, text, messages)


def _dead_letters(family: Family) -> dict[str, Any]:
    text = (
        f"Records of {family.topic.name} that were rejected: key, value and headers as they were, and behind them "
        f"headers that begin with {HEADER_PREFIX}. See docs/dead_letters.md."
    )
    headers = {
        "type": "object",
        "required": [REASON],
        "properties": {
            REASON: {"type": "string", "enum": [reason.value for reason in Reason]},
            ATTEMPTS: {"type": "string", "pattern": "^[0-9]{1,9}$"},
        },
    }
    message = {"title": "Dead letter", "contentType": "application/octet-stream", "headers": headers}
    return _channel(family.dead_letters, text, {"dead_letter": message})


def _state_text(topic: TopicSpec) -> str:
    if topic.state_of:
        return f"Snapshots of the hourly rollup of {topic.state_of}; only workers read and write it."
    return "A topic without a family."


def _channel(topic: TopicSpec, text: str, messages: dict[str, Any]) -> dict[str, Any]:
    config = topic.config
    others = ", ".join(f"{name}={value}" for name, value in config.items() if name not in _UNDERSTOOD)
    known = {name: int(value) for name, value in config.items() if name in _UNDERSTOOD and value.isdigit()}
    return {
        "address": topic.name,
        "description": f"{text} Also set: {others}.",
        "messages": messages,
        "bindings": {
            "kafka": {
                "topic": topic.name,
                "partitions": topic.partitions,
                "replicas": topic.replication,
                "topicConfiguration": {"cleanup.policy": [topic.cleanup], **known},
                "bindingVersion": _BINDING,
            }
        },
    }


def _operations(catalog: Catalog) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what the workers do: they receive events, and send dead letters."""
    for family in catalog.families:
        yield f"store_{family.name}", _operation("receive", family.topic, "Workers store the events.")
    for family in catalog.families:
        text = "Workers send what they reject."
        yield f"reject_{family.name}", _operation("send", family.dead_letters, text)


def _operation(action: str, topic: TopicSpec, text: str) -> dict[str, Any]:
    return {"action": action, "channel": _reference("channels", topic.name), "summary": text}


def _message(family: Family, schema: Schema) -> dict[str, Any]:
    raw = dict(schema.raw)
    return {
        "name": _name(schema),
        "title": raw["name"],
        "summary": raw.get("doc", ""),
        "contentType": _CONTENT,
        "payload": {"schemaFormat": _AVRO, "schema": raw},
        "bindings": {
            "kafka": {
                "key": {"type": "string", "format": "uuid", "description": f"The text of {family.key}, in lower case."},
                "schemaIdLocation": "payload",
                "bindingVersion": _BINDING,
            }
        },
        "x-avro-fingerprint": schema.fingerprint.hex(),
    }
