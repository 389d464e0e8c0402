"""Sample events of any family: its example events, with other times, ids, numbers and values of closed sets."""

import random
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pipeline.schema.fields import Field
from pipeline.schema.versions import VERSION_FIELD, Schema

_SPREAD = 0.5  # a number varies by this share of the example's
_REPEATED = 8  # events with one id, on average

Draw = Callable[[random.Random, Any], Any]
"""Function that varies the example's value of a field."""


def generated(schema: Schema, examples: Sequence[Mapping[str, Any]], rng: random.Random) -> Iterator[dict[str, Any]]:
    """Yield events without end; the caller sets their times.

    Text with a pattern and free text come from the examples, so that they are valid and look real.

    Args:
        schema: the newest schema of the family.
        examples: at least one valid event.
        rng: source of chance; the same state gives the same events.
    """
    draws = {field.name: _draw(field) for field in schema.fields if field.name != VERSION_FIELD}
    while True:
        example = rng.choice(examples)
        yield {name: draw(rng, example[name]) for name, draw in draws.items() if name in example}


def _draw(field: Field) -> Draw:
    if field.values is not None:
        values = field.values
        return lambda rng, value: value if value is None else rng.choice(values)
    if field.logical_type == "uuid":
        ids: list[str] = []
        return lambda rng, value: _id(rng, value, ids)
    if field.type == "boolean":
        return lambda rng, value: value if value is None else rng.random() < _SPREAD
    if field.type in {"int", "long", "float", "double"} and field.logical_type is None:
        return lambda rng, value: value if value is None else _near(rng, value, field)
    return lambda _, value: value


def _id(rng: random.Random, value: Any, ids: list[str]) -> Any:
    """Repeat an earlier id or make a new one: events have ids in common."""
    if value is None:
        return None
    if not ids or rng.random() < 1 / _REPEATED:
        ids.append(str(uuid.UUID(int=rng.getrandbits(128), version=4)))
    return ids[-1]


def _near(rng: random.Random, value: float, field: Field) -> float:
    drawn = value + (abs(value) or 1) * rng.uniform(-_SPREAD, _SPREAD)
    if field.minimum is not None:
        drawn = max(drawn, float(field.minimum))
    if field.maximum is not None:
        drawn = min(drawn, float(field.maximum))
    return round(drawn) if field.type in {"int", "long"} else drawn
