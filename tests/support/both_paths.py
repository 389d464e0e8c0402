"""Both ways to decode: the compiled core, and numpy alone. They give the same rows and the same verdicts."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from pipeline.columns import Column, DictionaryColumn, Rows, core
from pipeline.decode.decoder import Decoder
from support import oracle

T = TypeVar("T")
PATHS = ("compiled", "numpy")


@contextmanager
def path(name: str) -> Iterator[None]:
    """Decode in one of the two ways."""
    core.choose(use=name == "compiled")
    try:
        yield
    finally:
        core.choose(use=True)


def by_both(read: Callable[[], T]) -> tuple[T, T]:
    """Return what both ways give: the compiled one's first."""
    with path("compiled"):
        assert core.compiled() is not None, core.why_not()
        compiled = read()
    with path("numpy"):
        return compiled, read()


def decoded(decoder: Decoder, values: Sequence[bytes | None], timestamps: Sequence[int] | None = None) -> Rows:
    """Decode records in both ways, and check that the results are the same."""
    compiled, reference = by_both(lambda: decoder.decode(values, timestamps))
    assert plain(compiled) == plain(reference)
    return compiled


def plain(rows: Rows) -> tuple[Any, ...]:
    """Return rows as values that can be compared."""
    columns = {name: _plain(column) for name, column in rows.columns.items()}
    return columns, rows.positions.tolist(), rows.rejections, sorted(rows.rejected_times.tolist())


def _plain(column: Column) -> Any:
    if isinstance(column, DictionaryColumn):
        return column.to_list()
    if isinstance(column, np.ndarray):
        return column.dtype.str, column.tobytes()
    return oracle.values_of(column)
