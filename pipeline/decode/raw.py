"""Fields of many records as they were read, before validation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Union

import numpy as np
from numpy.typing import NDArray

from pipeline.columns import Ints, Mask, Spans


@dataclass(frozen=True, slots=True)
class Symbols:
    """Symbols of an enum, by their places."""

    places: Ints
    """Place of each record's symbol; below 0 for one that the reader lacks."""
    symbols: Sequence[str]

    def __getitem__(self, keep: Mask) -> "Symbols":
        return Symbols(self.places[keep], self.symbols)


@dataclass(frozen=True, slots=True)
class Nullable:
    """Values of the records that have one."""

    present: Mask
    values: "Raw"
    """Values of these records alone."""

    def __getitem__(self, keep: Mask) -> "Nullable":
        return Nullable(self.present[keep], self.values[keep[self.present]])


@dataclass(frozen=True, slots=True)
class Items:
    """Lists or maps: record i has the next `lengths[i]` of the items, and of the keys if there are some."""

    lengths: Ints
    items: "Raw"
    keys: Spans | None = None

    def __getitem__(self, keep: Mask) -> "Items":
        kept = np.repeat(keep, self.lengths)
        return Items(self.lengths[keep], self.items[kept], None if self.keys is None else self.keys[kept])

    @property
    def rows(self) -> Ints:
        """Index of each item's record."""
        return np.repeat(np.arange(len(self.lengths)), self.lengths)


Raw = Union[NDArray[Any], Spans, Symbols, Nullable, Items]  # noqa: UP007 (it refers to itself)
"""Numbers or booleans, or the spans of bytes, or one of the forms above."""
