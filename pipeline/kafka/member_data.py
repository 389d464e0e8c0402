"""Data of a group's member, in the form of Kafka's consumers: its partitions, and the port of its web server."""

import struct
from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import urlsplit

import orjson

_INT16, _INT32 = struct.Struct(">h"), struct.Struct(">i")
_SUBSCRIPTIONS = 256  # those of the members do not change until they join anew


def assigned(assignment: bytes) -> Iterator[tuple[str, int]]:
    """Yield topic and partition of each place in an assignment: version, then topics, each with its partitions."""
    (count,) = _INT32.unpack_from(assignment, 2)
    at = 6
    for _ in range(count):
        topic, at = _text(assignment, at)
        (partitions,) = _INT32.unpack_from(assignment, at)
        yield from ((topic, _INT32.unpack_from(assignment, at + 4 + 4 * each)[0]) for each in range(partitions))
        at += 4 + 4 * partitions


@lru_cache(_SUBSCRIPTIONS)
def web_port(subscription: bytes) -> int | None:
    """Return the port of a worker's web server, from the data beside its subscription; None if it isn't a worker.

    Faust puts the address there, for the workers of a group to find each other. Its host is the machine's own name,
    which other machines may not know; the broker knows from which address the worker has come.
    """
    try:
        (count,) = _INT32.unpack_from(subscription, 2)
        at = 6
        for _ in range(count):
            _, at = _text(subscription, at)
        (length,) = _INT32.unpack_from(subscription, at)
        data = orjson.loads(subscription[at + 4 : at + 4 + length])
        port: int | None = urlsplit(data["url"]).port
    except (struct.error, ValueError, LookupError, TypeError, AttributeError):  # a consumer of another kind
        return None
    return port


def _text(data: bytes, at: int) -> tuple[str, int]:
    """Return the text at a place, and the place behind it."""
    (length,) = _INT16.unpack_from(data, at)
    return data[at + 2 : at + 2 + length].decode(), at + 2 + length
