"""Texts in columns, whose widths don't depend on a terminal: the output is the same in a pipe."""

from collections.abc import Sequence

import click


def print_columns(rows: Sequence[Sequence[str]], *, numbers_from: int | None = None) -> None:
    """Print rows of texts in columns.

    Args:
        rows: at least one; all have the same number of texts.
        numbers_from: index of the first column to align to the right; None for no such column.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        texts = (
            text.ljust(width) if numbers_from is None or at < numbers_from else text.rjust(width)
            for at, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        click.echo("  ".join(texts).rstrip())
