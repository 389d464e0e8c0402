"""Explains rejections of records whose writer schema isn't known: the named schema, and the known ones."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from pipeline.columns import Mask, Rejection, Spans
from pipeline.errors import Reason
from pipeline.schema.framing import SINGLE_OBJECT_MARKER, schema_name
from pipeline.schema.versions import Schema, by_fingerprint

_MOST_SHOWN = 40


class UnknownSchemas:
    """Explanations for the records of one family.

    Args:
        schemas: the family's versions.
        registry: true if a registry was asked for schema ids.
    """

    def __init__(self, schemas: Sequence[Schema], *, registry: bool) -> None:
        self._known = _listed(by_fingerprint(schemas))
        self._no_id = "the registry has no such Avro schema" if registry else "no registry is set to ask"

    def rejections(self, values: Spans, unknown: Mask, answers: Mapping[int, str], first: int = 0) -> list[Rejection]:
        """Reject the records of `unknown`.

        Args:
            values: values of all records.
            unknown: true for each record to reject; it has a frame.
            answers: schema id to the registry's explanation.
            first: position of the first one in the micro-batch.
        """
        return [
            Rejection(first + at, Reason.UNKNOWN_SCHEMA, self._explained(values.at(at) or b"", answers))
            for at in np.flatnonzero(unknown).tolist()
        ]

    def _explained(self, value: bytes, answers: Mapping[int, str]) -> str:
        name = schema_name(value)
        if value.startswith(SINGLE_OBJECT_MARKER):
            return f"{name} is unknown; known are {self._known}"
        return f"{name} is unknown: {answers.get(int(name.removeprefix('id:')), self._no_id)}"


def _listed(known: Mapping[bytes, Schema]) -> str:
    """List the newest version's fingerprints first, then the others."""
    newest_first = sorted(known.items(), key=lambda pair: -pair[1].version)
    return ", ".join(_texts(newest_first[:_MOST_SHOWN])) + (", ..." if len(newest_first) > _MOST_SHOWN else "")


def _texts(known: Sequence[tuple[bytes, Schema]]) -> Iterator[str]:
    for octets, schema in known:
        yield f"{octets.hex()} (v{schema.version})"
