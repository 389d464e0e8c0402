"""Properties that hold for any bytes, as record, as writer schema, as texts and as metadata.

A failure is an AssertionError.

Each target takes one byte string, as a fuzzer makes them, so that a failed input can become a line in a file of seeds.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import orjson
from support import oracle
from support.both_paths import decoded

from hostile.case import Maker
from hostile.foreign import FOREIGN, PLAIN, id_of
from pipeline.catalog import load_catalog
from pipeline.config import Settings
from pipeline.decode.decoder import Decoder
from pipeline.errors import Reason
from pipeline.privacy.hashing import Hasher
from pipeline.privacy.metadata import MetadataFilter
from pipeline.privacy.sanitise import Sanitiser
from pipeline.schema.framing import frame_confluent
from pipeline.schema.privacy import Metadata
from pipeline.schema.writer_schema import UnresolvableError, check_writer_schema, parse_schema

_BODY = b"\n\n"
"""Separates a schema from the bytes of a record; JSON without blanks doesn't contain it."""


class _Writer(NamedTuple):
    """A writer schema, its family, and a decoder for its records."""

    maker: Maker
    schema: Any
    decoder: Decoder
    frame: Callable[[bytes], bytes]
    neighbours: tuple[bytes, bytes]
    rows: list[Any]


class _Registered:
    """A registry with one schema."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    def schema(self, _schema_id: int) -> Any:
        return parse_schema(self._text.decode(errors="replace"))


@cache
def writers() -> tuple[_Writer, ...]:
    """The newest schema of each family, and foreign schemas that aren't flat."""
    made = [Maker(family) for family in load_catalog(Settings()).families]
    (ui,) = (maker for maker in made if maker.family.name == "ui_events")
    own = [(maker, maker.family.schema.raw, None, maker.framed) for maker in made]
    foreign = [
        (ui, schema, _Registered(orjson.dumps(schema)), lambda body, name=name: frame_confluent(id_of(name), body))
        for name, schema in FOREIGN.items()
    ]
    return tuple(
        _writer(maker, schema, Decoder(maker.family, registry), frame)
        for maker, schema, registry, frame in own + foreign
    )


def _writer(maker: Maker, schema: Any, decoder: Decoder, frame: Callable[[bytes], bytes]) -> _Writer:
    neighbours = (maker.valid("before"), maker.valid("after"))
    return _Writer(maker, schema, decoder, frame, neighbours, oracle.rows_of(decoder.decode(neighbours)))


@cache
def _sanitising() -> tuple[_Writer, ...]:
    """The newest schema of each family, with decoders that sanitise."""
    hasher = Hasher(b"a key of the tests")
    makers = [writer.maker for writer in writers()[: -len(FOREIGN)]]
    return tuple(
        _writer(
            maker,
            maker.family.schema.raw,
            Decoder(maker.family, sanitise=Sanitiser(maker.family.schema, hasher)),
            maker.framed,
        )
        for maker in makers
    )


def record(data: bytes) -> None:
    """Check that a value gets the verdict of the oracle, and that its neighbours become their usual rows.

    Args:
        data: index of the writer schema, then the body; a larger index stands for a value without our frame.
    """
    number, body = data[0] if data else 0, data[1:]
    if number >= len(writers()):
        writer = writers()[number % len(writers())]
        _judge(writer, writer.decoder, body)
        return
    writer = writers()[number]
    verdict = _judge(writer, writer.decoder, writer.frame(body))
    expected = oracle.read(writer.schema, writer.maker.family.schema, body)
    # If there are several faults, the oracle may report another one.
    assert isinstance(verdict, Reason) == isinstance(expected, Reason), (verdict, expected)
    assert isinstance(verdict, Reason) or verdict == expected, (verdict, expected)


def schema(data: bytes) -> None:
    """Check that any schema from a registry, and bytes of it, give a row or a rejection with a short explanation.

    Args:
        data: a schema, or the type of an extra field; after an empty line, bytes of a record.
    """
    text, _, body = data.partition(_BODY)
    writer = next(writer for writer in writers() if writer.maker.family.name == "ui_events")
    extra = b'{"type":"record","name":"UiEvent","fields":[%b,{"name":"extra","type":%b}]}'
    plain = orjson.dumps(PLAIN)[1:-1]
    for whole, content in ((text, body), (extra % (plain, text), writer.maker.body("extra") + body)):
        registered = _Registered(whole)
        decoder = Decoder(writer.maker.family, registered)
        _judge(writer, decoder, frame_confluent(7, content))
        try:
            checked = check_writer_schema(registered.schema(7))
        except UnresolvableError:
            continue
        assert check_writer_schema(checked) == checked


def texts(data: bytes) -> None:
    """Check that any text gives a row or a rejection.

    Args:
        data: the text, for each field with open text.
    """
    text = data.decode(errors="ignore")
    for sanitising in _sanitising():
        for field in sanitising.maker.family.schema.fields:
            if field.type == "string" and not field.logical_type and not field.values:
                _judge(
                    sanitising,
                    sanitising.decoder,
                    sanitising.frame(sanitising.maker.body("text", **{field.name: text})),
                )


@cache
def _metadata_filter() -> MetadataFilter:
    keys = {"kind": frozenset({"chat", "größer"}), "n": frozenset[str]()}
    return MetadataFilter(Metadata(keys), Hasher(b"a key of the tests"))


def metadata(data: bytes) -> None:
    """Check that the core filters a text as the reference does, or leaves it to the reference.

    Args:
        data: the text; the core gets any bytes.
    """
    reference, usual = _metadata_filter(), b'{"n":1}'
    before, made, after = reference.usual([usual, data, usual])
    assert before == after == usual, "a neighbour has changed"
    assert made is None or made == reference(data)


def _judge(writer: _Writer, decoder: Decoder, value: bytes) -> Any:
    """The row that a value becomes, or the reason of its rejection."""
    before, after = writer.neighbours
    rows = decoded(decoder, [before, value, after])
    first, *own, last = oracle.rows_of(rows)
    assert [first, last] == writer.rows, "a neighbour has changed"
    assert len(own) + len(rows.rejections) == 1, "expected either a row or a rejection"
    assert all(rejection.position == 1 and len(rejection.detail) < 300 for rejection in rows.rejections)
    return own[0] if own else rows.rejections[0].reason


TARGETS: dict[str, Callable[[bytes], None]] = {
    "records": record,
    "schemas": schema,
    "texts": texts,
    "metadata": metadata,
}
