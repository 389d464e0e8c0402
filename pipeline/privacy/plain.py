r"""Converts text to its plain form.

Escapes such as `%40`, `&#64;` and `\u0040` are decoded, wide characters narrowed, and invisible ones dropped.
"""

import html
import re
import unicodedata
from functools import lru_cache
from urllib.parse import unquote

_ROUNDS = 8  # limit of escapes within escapes
_CHARACTERS = 4096  # cached
_BEYOND = 0x110000
_SURROGATES = range(0xD800, 0xE000)

_ESCAPED = re.compile(r"\\(?:u\{([0-9a-f]{1,6})\}|u([0-9a-f]{4})|x([0-9a-f]{2})|([@/]))", re.IGNORECASE)
_PERCENT = re.compile(r"%(?:25)++(?=[0-9a-f]{2})", re.IGNORECASE)
_AMPERSAND = re.compile(r"&(?:amp;)++", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]++")
_SPELT = re.compile(r"[ \t]?[\[({](at|dot|@|\.)[\])}][ \t]?|=40(?=[\w-]++\.[a-z])", re.IGNORECASE)
_SPELT_AS = {"at": "@", "dot": ".", None: "@"}

_DOTS = "\u3002\u00b7"
_MINUS = "\u2212"
_UNSEEN = frozenset(
    map(chr, (0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, *range(0x180B, 0x1810), *range(0xFE00, 0xFE10)))
) | frozenset(map(chr, range(0xE0100, 0xE01F0)))
"""Characters that displays ignore, beside Unicode's format characters."""


def plain(text: str) -> str:
    """Return the text as a reader sees it, without control characters other than line breaks and tabs."""
    for _ in range(_ROUNDS):
        decoded = _narrow(_decoded(text))
        if decoded == text:
            break
        text = decoded
    if "(" in text or "[" in text or "{" in text or "=40" in text:
        text = _SPELT.sub(lambda match: _SPELT_AS.get(match[1] and match[1].lower(), match[1]), text)
    return text


def _decoded(text: str) -> str:
    if "\\" in text:
        text = _ESCAPED.sub(_unescaped, text)
    if "&" in text:
        text = html.unescape(_AMPERSAND.sub("&", text))
    if "%" in text:
        text = unquote(_PERCENT.sub("%", text))
    return text


def _unescaped(match: re.Match[str]) -> str:
    if match[4]:
        return match[4]
    code = int(match[1] or match[2] or match[3], 16)
    return chr(code) if code < _BEYOND and code not in _SURROGATES else match[0]


def _narrow(text: str) -> str:
    if not text.isascii():
        text = "".join(map(_character, unicodedata.normalize("NFKC", text)))
    return _CONTROL.sub("", text)


@lru_cache(_CHARACTERS)
def _character(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cf" or character in _UNSEEN:
        return ""
    if category == "Pd" or character == _MINUS:
        return "-"
    if category == "Nd":
        return str(unicodedata.decimal(character))
    return "." if character in _DOTS else character
