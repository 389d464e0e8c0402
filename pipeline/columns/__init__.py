"""Data by column: spans of bytes, columns of rows, and verdicts on the records of a micro-batch."""

from pipeline.columns.rows import (
    WIDE,
    Column,
    DictionaryColumn,
    Ints,
    ItemsColumn,
    Mask,
    NullableColumn,
    PartVerdicts,
    Rejection,
    Rows,
    Verdicts,
    merge,
    select,
    spread,
    take,
)
from pipeline.columns.spans import ByteBuffer, Spans, varints, zigzag

__all__ = [
    "WIDE",
    "ByteBuffer",
    "Column",
    "DictionaryColumn",
    "Ints",
    "ItemsColumn",
    "Mask",
    "NullableColumn",
    "PartVerdicts",
    "Rejection",
    "Rows",
    "Spans",
    "Verdicts",
    "merge",
    "select",
    "spread",
    "take",
    "varints",
    "zigzag",
]
