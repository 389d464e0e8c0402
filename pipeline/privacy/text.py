"""Sanitises free text: placeholders such as `<email>` replace parts that look personal or secret.

The `rules` are applied in turn to the text in its `plain` form. A text without any match is kept as it was written. The
result depends only on the text.
"""

from collections.abc import Sequence

from pipeline.privacy.plain import plain
from pipeline.privacy.rules import RULES

_GROUP = 64  # texts that are searched together, because most have no match
_ZEROS = str.maketrans("123456789", "000000000")


def sanitised(texts: Sequence[str]) -> list[str]:
    """Sanitise each text independently; no result has a NUL that its text didn't have."""
    shapes = [_shape(text) for text in texts]
    distinct = list(dict.fromkeys(shapes))
    clean: set[str] = set()
    for start in range(0, len(distinct), _GROUP):
        group = distinct[start : start + _GROUP]
        # No pattern depends on the end of a text, so a group without a match has only texts without a match.
        if _is_clean("\n".join(group)):
            clean.update(group)
    return [text if shape in clean else _sanitised(text) for text, shape in zip(texts, shapes, strict=True)]


def _shape(text: str) -> str:
    """Replace digits by zeros, because no rule needs another digit; texts with possible escapes keep theirs."""
    return text if "&" in text or "=40" in text else text.translate(_ZEROS)


def _is_clean(text: str) -> bool:
    lower = text.lower()
    return plain(text) == text and all(rule.applied(text, lower) == text for rule in RULES)


def _sanitised(text: str) -> str:
    decoded = plain(text)
    clean = _replaced(decoded)
    # A text whose plain form has no match keeps its own form.
    return clean if clean != decoded else _replaced(text)


def _replaced(text: str) -> str:
    for rule in RULES:
        text = rule.applied(text, text.lower())
    return text
