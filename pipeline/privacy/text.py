r"""Free text: what looks personal or secret is replaced by a placeholder such as `<email>`.

Each rule is a pattern and what takes its place. Rules are applied one after the other, to the text in plain form:
escapes such as `%40`, `&#64;` and `\u0040` decoded, full-width characters narrow, invisible ones gone. A text in which
nothing is found stays as it was written. What comes of a text depends on that text alone.

No pattern is tried twice over the same stretch: runs begin where a run can begin, and possessive quantifiers give
nothing back. A hostile text of 8 KiB takes milliseconds.
"""

import html
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import NamedTuple
from urllib.parse import unquote

_GROUP = 64  # texts that are looked at together: most have nothing in them
_ROUNDS = 3  # of escapes within escapes
_RANDOM = 0.2  # changes by character, between letters and digits or of case, in words that have any; CamelCase has 0.16
_RANDOM_CHARACTERS = 16  # of such words
_IBAN_DIGITS = 10

_ESCAPED = re.compile(r"\\u(?![dD][89a-fA-F])([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})")
_SPELT = re.compile(r"[ \t]?[\[({](at|dot|@|\.)[\])}][ \t]?", re.IGNORECASE)
_SPELT_AS = {"at": "@", "dot": "."}
_WORD = re.compile(r"[A-Za-z0-9]+")
_PIECE = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+")
_LONG_HEX = re.compile(r"[0-9a-f]{32,}", re.IGNORECASE)
_UUID = re.compile(r"(?<![0-9a-f-])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![0-9a-f-])", re.IGNORECASE)
_UUID_CHARACTERS = 36
_ZEROS = str.maketrans("123456789", "000000000")

Replacement = str | Callable[[re.Match[str]], str]


class _Rule(NamedTuple):
    needles: tuple[str, ...]
    """One of them, in lower case, is in every text that the pattern matches; any text, when there are none."""
    pattern: re.Pattern[str]
    replacement: Replacement

    def applied(self, text: str, lower: str) -> str:
        """The text with everything replaced that the rule finds."""
        if self.needles and not any(needle in lower for needle in self.needles):
            return text
        return self.pattern.sub(self.replacement, text)


def _rule(replacement: Replacement, pattern: str, *needles: str) -> _Rule:
    return _Rule(needles, re.compile(pattern, re.IGNORECASE | re.VERBOSE), replacement)


def _authorization(match: re.Match[str]) -> str:
    """`basic authentication` is no secret, `basic YWxpY2U6aHVudGVyMg==` is one."""
    scheme, credentials = match[1], match[2]
    secret = scheme.lower() == "bearer" or re.search(r"[0-9=]|[a-z][A-Z]", credentials)
    return f"{scheme} <token>" if secret else match[0]


def _address(match: re.Match[str]) -> str:
    """An address keeps its path; it is matched with or without a query, so that none is looked at twice."""
    return f"{match[1]}?<query>" if match[2] else match[1]


def _iban(match: re.Match[str]) -> str:
    return "<iban>" if sum(map(str.isdigit, match[0])) >= _IBAN_DIGITS else match[0]


def _number(match: re.Match[str]) -> str:
    """Digits that belong to a UUID aren't a number: runs and sessions are told by it."""
    uuid = _UUID.search(match.string, max(0, match.start() - _UUID_CHARACTERS))
    return match[0] if uuid and uuid.start() <= match.start() and match.end() <= uuid.end() else "<number>"


def _random(match: re.Match[str]) -> str:
    """A long run of characters that no word, no path and no UUID looks like."""
    run = match[0]
    if _UUID.fullmatch(run):
        return run
    pieces = {word: len(_PIECE.findall(word)) for word in _WORD.findall(run)}
    mixed = {word: count for word, count in pieces.items() if count > 1}
    size = sum(map(len, mixed))
    if size >= _RANDOM_CHARACTERS and sum(mixed.values()) - len(mixed) > _RANDOM * size:
        return "<token>"
    return _LONG_HEX.sub("<token>", run)


_RULES = (
    _rule("<key>", r"-----BEGIN[ ][A-Z ]{0,40}?PRIVATE[ ]KEY-----[^-]*+(?:-----END[ ][A-Z ]*+-----)?", "-----begin"),
    _rule(r"\1<cookie>", r"\b((?:set-)?cookie2?[ \t]*+[:=][ \t]*+)[^\n]++", "cookie"),
    _rule(_authorization, r"\b(bearer|basic|digest)[ \t:]++([\w.~+/=-]{6,}+)", "bearer", "basic", "digest"),
    _rule(
        r"\1<secret>",
        r"""
        (?<![\w-])
        ([\w-]{0,40}?
        (?:passw(?:or)?d|passphrase|pwd|secret|token(?!s)|api[_-]?key|access[_-]?key|private[_-]?key|credential|auth
          |sess(?:ion)?[_-]?id|session|csrf|signature|jwt)
        [\w-]{0,40}+["']?[ \t]*+[=:][ \t]*+)
        (?:"[^"\n]*+"|'[^'\n]*+'|[^\s"'&;,<>]++)
        """,
        *("passw", "passphrase", "pwd", "secret", "token", "key", "credential", "auth", "sess", "csrf", "sign", "jwt"),
    ),
    _rule(
        "<token>",
        r"""
        (?<![a-z0-9])
        (?:(?:sk|pk|rk)[-_](?=[\w-]*\d)[\w-]{8,}+ | gh[oprsu]_\w{8,}+ | github_pat_\w{8,}+ | glpat-[\w-]{8,}+
          | xox[a-z]-[\w-]{8,}+ | xapp-[\w-]{8,}+ | (?:akia|asia|aroa|aida)[a-z0-9]{12,}+ | aiza[\w-]{20,}+
          | ya\d\d\.[\w.-]{8,}+ | (?:hf|npm|dop_v\d|shpat|whsec)_\w{8,}+ | pypi-[\w-]{8,}+ | sg\.[\w.-]{16,}+
          | eyj[\w-]{8,}+(?:\.[\w-]*+){0,2})
        """,
        *("sk-", "sk_", "pk-", "pk_", "rk-", "rk_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-"),
        *("xox", "xapp-", "akia", "asia", "aroa", "aida", "aiza", "ya", "hf_", "npm_", "dop_v", "shpat_"),
        *("whsec_", "pypi-", "sg.", "eyj"),
    ),
    _rule("<credentials>@", r"(?<=://)[^\s/?\#]{0,512}@", "://"),
    _rule(_address, r"(://[^\s\"'<>?\#]*+)([?\#][^\s\"'<>]*+)?", "://"),
    _rule("?<query>", r"\?[^\s\"'<>=?]*+=[^\s\"'<>]*+", "?"),
    _rule(
        "<email>",
        r"""(?:"[^"\n]{1,64}+" | (?<![\w.!\#$%&'*+/=?^`{|}~-])[\w.!\#$%&'*+/=?^`{|}~-]++)@\[?[\w.:-]*\w\]?""",
        "@",
    ),
    _rule(
        r"\1<user>",
        r"""
        ((?<![\w.-])(?:home|users|documents[ ]and[ ]settings|var/mail|var/spool/mail)[\\/]++ | (?<![\w~])~(?=[\w.-]+/))
        (?:[^\\/\s"'<>|:;,]++(?:[ ][^\\/\s"'<>|:;,]++){1,3}(?=[\\/]) | [^\\/\s"'<>|:;,]++)
        """,
        *("home", "users", "documents and settings", "mail", "~"),
    ),
    _rule("<location>", r"geo:-?[\d.,-]++", "geo:"),
    _rule("<location>", r"\d{1,3}[ ]?°[ ]?\d{1,2}\W{1,3}[\d.]*+\W{0,3}[NSEW]?", "°"),
    _rule(
        "<location>",
        r"\d{1,3}\.\d{3,}+°?[ ]?[NSEW]?(?:[ ]?[,;/][ ]?|[ ])-?\d{1,3}\.\d{3,}+(?:°?[ ]?[NSEW]\b)?",
        ".",
    ),
    _rule("<mac>", r"[0-9a-f](?<![0-9a-f:-].)[0-9a-f](?:[:-][0-9a-f]{2}){5}(?![0-9a-f])", ":", "-"),
    _rule("<ip>", r"\d(?<!\d\d)(?<!\d\.\d)\d{0,2}(?:\.\d{1,3}){3}(?!\d)", "."),
    _rule("<ip>", r"(?<![a-z0-9])ip(?:-\d{1,3}){4}", "ip-"),
    _rule(
        "<ip>",
        r"""
        (?<![0-9a-z:])
        (?:(?:[0-9a-f]{1,4}:){7}[0-9a-f]{1,4}
          | (?=[0-9a-f:]*[0-9a-f])(?:[0-9a-f]{1,4}(?::[0-9a-f]{1,4}){0,6})?::(?:[0-9a-f]{1,4}(?::[0-9a-f]{1,4}){0,6})?)
        (?:%[\w.]++)?
        (?![0-9a-z])
        """,
        ":",
    ),
    _rule(
        _iban,
        r"(?<![0-9a-z])[a-z]{2}\d{2}(?:[ -]?[0-9a-z]{4}){2,7}(?:[ -]?[0-9a-z]{1,3})?(?![0-9a-z])",
    ),
    _rule(
        _number,
        r"""
        \d(?<!\d\d)(?!\d{3}-\d\d-\d\d(?!\d))
        (?:(?:[ ()./_-]{0,3}\d){8,} | (?<=\+.)(?:[ ()./_-]{0,3}\d){6,} | (?<=\(.)\d{1,4}\)(?:[ -]?\d){5,})
        """,
    ),
    _rule(_random, r"[\w+/=-](?<![\w+/=-]{2})[\w+/=-]{19,}+"),
)
"""Patterns begin with what they look for and look back after it: so most of a text is passed over in C."""


def sanitised(texts: Sequence[str]) -> list[str]:
    """The texts without what looks personal, each as if it were alone."""
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
    """The text with a zero for each digit: no pattern asks which one it is, but the names of entities do."""
    return text if "&" in text else text.translate(_ZEROS)


def _is_clean(text: str) -> bool:
    lower = text.lower()
    return _plain(text) == text and all(rule.applied(text, lower) == text for rule in _RULES)


def _sanitised(text: str) -> str:
    plain = _plain(text)
    clean = _replaced(plain)
    # A text that says the same in plain form keeps its own.
    return clean if clean != plain else _replaced(text)


def _replaced(text: str) -> str:
    for rule in _RULES:
        text = rule.applied(text, text.lower())
    return text


def _plain(text: str) -> str:
    for _ in range(_ROUNDS):
        decoded = text
        if "\\" in text:
            decoded = _ESCAPED.sub(lambda match: chr(int(match[1] or match[2], 16)), decoded)
        if "&" in text:
            decoded = html.unescape(decoded)
        if "%" in text:
            decoded = unquote(decoded)
        if decoded == text:
            break
        text = decoded
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
        text = "".join(character for character in text if unicodedata.category(character) != "Cf")
    if "(" in text or "[" in text or "{" in text:
        text = _SPELT.sub(lambda match: _SPELT_AS.get(match[1].lower(), match[1]), text)
    return text
