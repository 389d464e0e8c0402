"""Free text: what looks personal or secret is replaced by a placeholder such as `<email>`.

The rules (`rules`) are applied one after the other to the text in plain form (`plain`). A text in which nothing is
found stays as it was written. What comes of a text depends on that text alone.
"""

from collections.abc import Sequence

from pipeline.privacy.plain import plain
from pipeline.privacy.rules import RULES

_GROUP = 64  # texts that are looked at together: most have nothing in them
_ZEROS = str.maketrans("123456789", "000000000")


def sanitised(texts: Sequence[str]) -> list[str]:
    """The texts without what looks personal, each as if it were alone; none of them holds a NUL that it didn't hold."""
    shapes = [_shape(text) for text in texts]
    distinct = list(dict.fromkeys(shapes))
    clean: set[str] = set()
    for start in range(0, len(distinct), _GROUP):
        group = distinct[start : start + _GROUP]
        # No pattern needs a line's end, so what none of them finds in the lines together is in none of the lines.
        if _is_clean("\n".join(group)):
            clean.update(group)
    return [text if shape in clean else _sanitised(text) for text, shape in zip(texts, shapes, strict=True)]


def _shape(text: str) -> str:
    """The text with a zero for each digit: no rule asks for another one, but some escapes mean something by it."""
    return text if "&" in text or "=40" in text else text.translate(_ZEROS)


def _is_clean(text: str) -> bool:
    lower = text.lower()
    return plain(text) == text and all(rule.applied(text, lower) == text for rule in RULES)


def _sanitised(text: str) -> str:
    decoded = plain(text)
    clean = _replaced(decoded)
    # A text that says the same in plain form keeps its own.
    return clean if clean != decoded else _replaced(text)


def _replaced(text: str) -> str:
    for rule in RULES:
        text = rule.applied(text, text.lower())
    return text
