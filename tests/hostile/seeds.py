"""Seeds of the fuzzer: the hostile cases, and inputs that reach code which no case reaches.

seeds/<target>.txt holds these inputs, one Python bytes literal a line, so that they are readable.
"""

import ast
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

import orjson

from hostile.cases import all_cases
from hostile.foreign import FOREIGN
from hostile.writers import WRITERS
from pipeline.catalog import load_catalog
from pipeline.config import Settings
from pipeline.producer.sample import sample
from pipeline.schema.framing import CONFLUENT_HEADER_BYTES, CONFLUENT_MAGIC, SINGLE_OBJECT_HEADER_BYTES

_DIRECTORY = Path(__file__).parent / "seeds"
_MOST_BYTES = 2048


def load(target: str) -> list[bytes]:
    """The stored inputs of a target."""
    return [ast.literal_eval(line) for line in _file(target).read_text(encoding="ascii").splitlines()]


def store(target: str, seeds: Iterable[bytes]) -> None:
    """Store the inputs that no case makes."""
    made = set(make(target))
    lines = sorted({repr(seed) for seed in seeds if seed not in made and len(seed) <= _MOST_BYTES})
    _file(target).write_text("".join(f"{line}\n" for line in lines), encoding="ascii")


def make(target: str) -> list[bytes]:
    """The cases as inputs of a target."""
    return [seed for seed in dict.fromkeys(_MADE[target]()) if len(seed) <= _MOST_BYTES]


def _file(target: str) -> Path:
    return _DIRECTORY / f"{target}.txt"


def _records() -> list[bytes]:
    catalog = load_catalog(Settings())
    families = [family.name for family in catalog.families]
    values = [(families.index(case.family), case.value) for case in all_cases(catalog) if case.value]
    framed = [
        bytes([number]) + value[SINGLE_OBJECT_HEADER_BYTES:] for number, value in values if value[:1] != CONFLUENT_MAGIC
    ]
    foreign = [
        bytes([len(families) + number]) + value[CONFLUENT_HEADER_BYTES:]
        for number in range(len(FOREIGN))
        for _, value in values
        if value[:1] == CONFLUENT_MAGIC
    ]
    return [*framed, *foreign, *(b"\xff" + value for _, value in values)]


def _schemas() -> list[bytes]:
    objects = [text for text in WRITERS.values() if text.endswith("}") and len(text) <= _MOST_BYTES]
    whole = [*map(orjson.loads, objects), *FOREIGN.values()]
    types = [
        field["type"]
        for schema in whole
        for field in schema.get("fields", ())
        if isinstance(field, dict) and "type" in field
    ]
    return [
        *(orjson.dumps(schema) + b"\n\n" + bytes(20) for schema in whole),
        *(orjson.dumps(declared) + b"\n\n\x02\x02\x02\0" for declared in types),
    ]


def _texts() -> list[bytes]:
    events = [event for _, event in sample(500, seed=1, start=datetime(2026, 1, 5, tzinfo=UTC), hours=1)]
    texts = {value for event in events for value in event.values() if isinstance(value, str)}
    return [*sorted(text.encode() for text in texts)[::9], *_PERSONAL]


def _metadata() -> list[bytes]:
    return [*(text for text in _texts() if text.startswith(b"{")), *_OBJECTS]


_OBJECTS = (
    b' {"n" : [1, -1, 0.5, 999999.999,1000000,52.520008,-0.0,0.001,123456789012345678], "z":{},"kind":\t"chat" }\n',
    b'{"n":1,"n":2}',
    b'{"n":[-0,01,1.50,0.0001,1e3,1.,.5,+1,1000000000000000000]}',
    b'{"a":{"kind":"gr\xc3\xb6\xc3\x9fer","b":[{"kind":[[["x"]],null,true,false]}]},"\xc3\xa4":"\xf0\x9f\x98\x80"}',
    b'{"\\u006e":"\\ud83d","x":"a\\nb"}',
    b'{"n":' * 17 + b"1" + b"}" * 17,
    b'{"n":[' + b'"a",' * 190 + b"1]}",
)
_PERSONAL = (
    b'{"a":[{"mail":"jo.public@example.org"},[1.5,true,null,"x"]]}',
    b"jo@example.org at 203.0.113.9 or 2001:db8::1 in /home/jo/x, C:\\Users\\jo\\x, Bearer eyJhbGciOi.eyJzdWIi.c2ln",
)
_MADE: dict[str, Callable[[], list[bytes]]] = {
    "records": _records,
    "schemas": _schemas,
    "texts": _texts,
    "metadata": _metadata,
}
