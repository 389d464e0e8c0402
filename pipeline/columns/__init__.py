"""Data by column: spans of bytes, columns of rows, and verdicts on the records of a micro-batch."""

from pipeline.columns.rows import Column, DictionaryColumn, Ints, Mask, Rejection, Rows, Verdicts, merge, select
from pipeline.columns.spans import ByteBuffer, Spans, varints, zigzag

__all__ = [
    "ByteBuffer",
    "Column",
    "DictionaryColumn",
    "Ints",
    "Mask",
    "Rejection",
    "Rows",
    "Spans",
    "Verdicts",
    "merge",
    "select",
    "varints",
    "zigzag",
]
