"""The rules for free text: patterns of personal or secret parts, and their replacements.

A pattern may match too much; a function then decides about the match. Two principles keep this fast and safe:

- No pattern scans a stretch repeatedly. The beginning of a pattern matches once in a run, quantifiers are possessive or
  bounded, and functions decide the rest. A text of 8 KiB takes milliseconds, whatever it repeats.
- No pattern needs a digit other than 0. Texts are first searched with all digits replaced by zeros; if this finds
  nothing, the text itself must be clean too. So a function may accept some digits, but must not accept zeros.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

_RANDOM = 0.2  # changes of case or between letters and digits, per character of mixed words; CamelCase has 0.16
_RANDOM_CHARACTERS = 16  # in mixed words
_KEY_CHARACTERS = 8  # in a word with more than one change
_IBAN_DIGITS = 10
_DIGITS = 9
_DIALLED_DIGITS = 7  # after a plus, or with an area code in parentheses
_IPV4_NUMBERS = 4
_IPV6_GROUPS = 8
_THOUSANDS = 3  # digits

_WORD = re.compile(r"[A-Za-z0-9]+")
_PIECE = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+")
_LONG_HEX = re.compile(r"[0-9a-f]{32,}", re.IGNORECASE)
_UUID = re.compile(r"(?<![0-9a-f-])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![0-9a-f-])", re.IGNORECASE)
_UUID_CHARACTERS = 36
_DATE = re.compile(r"(?<!\d)(?:19|20)\d\d([/-])(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])(?!\d)")
_FRACTION = re.compile(r"(?<![\d.])\d\.\d{3,}(?![\d.])")
_QUANTITY = re.compile(
    r"(?<!\+)\d+(?:\.\d+)? ?(?:bytes?|[kmgt]i?b|rows?|tokens?|events?|records?|messages?|[mnu\u03bc]?s|seconds?)\b",
    re.IGNORECASE,
)
_HOST_AND_PORT = re.compile(r"(?:\[[^\]]*\]|[^:]*)(?::\d*)?")
_VERSION = re.compile(r"v?\d+(?:\.\d[\w-]*)*", re.IGNORECASE)

Replacement = str | Callable[[re.Match[str]], str]


class Rule(NamedTuple):
    """One kind of personal or secret text, and its replacement."""

    needles: tuple[str, ...]
    """Strings in lower case; each text that matches contains one of them. Empty: the pattern is always tried."""
    pattern: re.Pattern[str]
    replacement: Replacement

    def applied(self, text: str, lower: str) -> str:
        """Replace every match in a text; `lower` is the text in lower case."""
        if self.needles and not any(needle in lower for needle in self.needles):
            return text
        return self.pattern.sub(self.replacement, text)


def _rule(replacement: Replacement, pattern: str, *needles: str) -> Rule:
    return Rule(needles, re.compile(pattern, re.IGNORECASE | re.VERBOSE), replacement)


def _scheme(match: re.Match[str]) -> str:
    """Replace credentials: `basic YWxpY2U6aHVudGVyMg==` has some, `basic authentication` has none."""
    scheme, credentials = match[1], match[2]
    secret = scheme.lower() == "bearer" or re.search(r"[0-9=]|[a-z][A-Z]", credentials)
    return f"{scheme} <token>" if secret else match[0]


def _key(match: re.Match[str]) -> str:
    """Replace a key, which has a random word; `sk-learn-2024` and `hf_transformers_bench` are names."""
    counts = [(len(word), len(_PIECE.findall(word))) for word in _WORD.findall(match[0])]
    secret = any(
        (size >= _KEY_CHARACTERS and pieces > 2) or (size >= _RANDOM_CHARACTERS and pieces > 1)
        for size, pieces in counts
    )
    return "<token>" if secret else match[0]


def _address(match: re.Match[str]) -> str:
    """Keep host and path of an address. A password may contain characters that end a host; a port is none."""
    address = match[1]
    host = re.split(r"[/?#]", address, maxsplit=1)[0]
    end = host.rfind("@")
    if end < 0 and not _HOST_AND_PORT.fullmatch(host):
        end = address.rfind("@")
    login, address = ("<credentials>@", address[end + 1 :]) if end >= 0 else ("", address)
    path = re.split(r"[?#]", address, maxsplit=1)
    return f"://{login}{path[0]}{'?<query>' if len(path) > 1 and path[1] else address[len(path[0]) :]}"


def _mailbox(match: re.Match[str]) -> str:
    """Replace a mail address; `lodash@4.17.21` is a version, but four numbers are a host."""
    host = match[1] or match[2]
    return match[0] if _VERSION.fullmatch(host) and host.count(".") + 1 != _IPV4_NUMBERS else "<email>"


def _place(match: re.Match[str]) -> str:
    """Replace a location; two numbers below ten are correlations or shares."""
    return "<location>" if re.search(r"\d\d\.", match[0]) else match[0]


def _listed(match: re.Match[str]) -> str:
    """Replace an address like `192,168,13,37`; `1,234,567,890` is one number."""
    thousands = all(len(group) == _THOUSANDS for group in match[0].split(",")[1:])
    return match[0] if thousands else "<ip>"


def _groups(match: re.Match[str]) -> str:
    """Replace eight groups, and shorter forms with `::`, unless all groups look like `10:20::30` or `face::bed`."""
    groups = match[0].split(":")
    short = "" in groups and any(len(group) > 2 and re.search(r"\d", group) for group in groups)
    return "<ip>" if short or len(groups) >= _IPV6_GROUPS else match[0]


def _iban(match: re.Match[str]) -> str:
    return "<iban>" if sum(map(str.isdigit, match[0])) >= _IBAN_DIGITS else match[0]


def _number(match: re.Match[str]) -> str:
    """Replace a long number; the digits of UUIDs, dates, fractions and quantities with a unit don't count."""
    text, (start, end) = match.string, match.span()
    if _QUANTITY.match(text, start):
        return match[0]
    before = text[max(0, start - 1) : start]
    dialled = before == "+" or (before == "(" and ")" in match[0][:6])
    around = max(0, start - _UUID_CHARACTERS)
    run = _UUID.sub(" " * _UUID_CHARACTERS, text[around : end + _UUID_CHARACTERS])[start - around : end - around]
    digits = sum(map(str.isdigit, run if dialled else _FRACTION.sub("", _DATE.sub("", run))))
    return "<number>" if digits >= (_DIALLED_DIGITS if dialled else _DIGITS) else match[0]


def _random(match: re.Match[str]) -> str:
    """Replace a long random run; words, paths and UUIDs don't look like one."""
    run = match[0]
    if _UUID.fullmatch(run):
        return run
    pieces = {word: len(_PIECE.findall(word)) for word in _WORD.findall(run)}
    mixed = {word: count for word, count in pieces.items() if count > 1}
    size = sum(map(len, mixed))
    if size >= _RANDOM_CHARACTERS and sum(mixed.values()) - len(mixed) > _RANDOM * size:
        return "<token>"
    return _LONG_HEX.sub("<token>", run)


_NAME = r"""
(?:passw(?:or)?[dt] | passphrase | passcode | (?<![a-z])pass(?![a-z]) | pwd | token(?!s|i[sz]|[_-]?count)
  | (?:api|access|private|secret)[_-]?key | secret | credential | (?<![a-z])auth(?![a-z]) | sess(?:ion)?[_-]?id
  | session | csrf | signature | jwt)
[\w-]{0,40}+
"""
"""Names that secrets stand beside, with any prefix and suffix."""
_PROSE = r"(?<![\w-])(?:secret|session|auth|signature|credentials?):[ \t]{1,8}[a-z]{1,12}(?![.,;!?]?\S)"
"""Prose such as `The Secret: A Story` or `session: closed`: one of these words, and a word after a blank."""
_QUOTED = r"""(?:\\*+"(?:[^"\\\n]++|\\.)*+"? | \\*+'(?:[^'\\\n]++|\\.)*+'? | [\[({][^\])}\n]*+)"""
_VALUE = rf"""(?:{_QUOTED}[^\s"'<>,;&\])}}]*+ | [^\s"'<>]++)"""
_HOST = r"[\w-]++(?:\.[\w-]++)*+"
_DOTTED = r"[\w-]++(?:\.[\w-]++)++"
_PERSON = r"""[^\\/\s"'<>|:;,]"""
_FILE = r"[\w-]++\.(?:mdx?|html?|json|ya?ml|txt|csv|py|[jt]sx?|css)(?![\w\\/.-])"
"""Files such as `content/home/index.md`: a file in such a folder isn't a user's name."""

RULES = (
    _rule(
        "<key>",
        r"-----BEGIN[ ][A-Z ]{0,40}?PRIVATE[ ]KEY[A-Z ]{0,10}-----(?:(?!-----END)[\s\S])*+(?:-----END[A-Z ]*+-*+)?",
        "-----begin",
    ),
    _rule(
        r"\1<secret>",
        r"""\b((?:(?:set-)?cookie\d? | (?:proxy-)?authorization)["']?[ \t]*+(?:=>|[:=])[ \t]*+)[^\s][^\n]*+""",
        *("cookie", "authorization"),
    ),
    _rule(_scheme, r"\b(bearer|basic)[ \t:]++([\w.~+/=-]{6,}+)", "bearer", "basic"),
    _rule(
        r"\1<secret>",
        rf"""
        (?!{_PROSE})
        ({_NAME} (?:[\\"'\]]{{0,4}}[ \t]*+(?::=|=>|->|[:=])[ \t]*+ | >)
          | (?<![\w-])--[\w-]{{0,40}}?{_NAME}[ \t]++(?!-))
        {_VALUE}
        """,
        *("pass", "pwd", "secret", "token", "key", "credential", "auth", "sess", "csrf", "signature", "jwt"),
    ),
    _rule(
        "<token>",
        r"""
        (?<![a-z0-9])
        (?:(?:sk|pk|rk)_(?:live|test)_\w{8,}+ | gh[oprsu]_\w{8,}+ | github_pat_\w{8,}+ | glpat-[\w-]{8,}+
          | xox[a-z]-[\w-]{8,}+ | xapp-[\w-]{8,}+ | (?:akia|asia|aroa|aida)[a-z0-9]{12,}+ | aiza[\w-]{20,}+
          | ya\d\d\.[\w.-]{8,}+ | (?:dop_v\d|shpat|whsec)_\w{8,}+ | pypi-[\w-]{8,}+ | eyj[\w-]{8,}+(?:\.[\w-]*+){0,2})
        """,
        *("sk_", "pk_", "rk_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "xox", "xapp-", "akia"),
        *("asia", "aroa", "aida", "aiza", "ya", "dop_v", "shpat_", "whsec_", "pypi-", "eyj"),
    ),
    _rule(
        _key,
        r"(?<![a-z0-9])(?:(?:sk|pk|rk)[_-][\w-]{8,}+ | (?:hf|npm)_\w{8,}+ | sg\.[\w.-]{16,}+)",
        *("sk-", "sk_", "pk-", "pk_", "rk-", "rk_", "hf_", "npm_", "sg."),
    ),
    _rule(_address, r"""://((?:[^\s/?\#]{0,512}@)?+(?:(?!://)[^\s"'<>])*+)""", "://"),
    _rule("?<query>", r"\?[^\s\"'<>=?]*+=[^\s\"'<>]*+", "?"),
    _rule(
        _mailbox,
        rf"""
        (?:"[^"\n]{{1,64}}+" | (?<![\w.!\#$%&'*+=?^`{{|}}~-])[\w.!\#$%&'*+=?^`{{|}}~-]++)(?:\([^()\n]{{0,64}}\))?
        (?:@(?:\([^()\n]{{0,64}}\))?\[?({_HOST}) | [ \t]?@[ \t]?({_DOTTED}))
        """,
        "@",
    ),
    _rule(
        r"\1<user>",
        rf"""
        ((?<![\w.-])(?:home|users|documents[ ]and[ ]settings|var/mail|var/spool/mail)[\\/]++
          (?:(?:\.{{1,2}}|home|users)[\\/]++){{0,8}}+ | (?<![\w~])~(?=[a-z]))
        (?!{_FILE})
        (?:{_PERSON}++(?:[ ]{_PERSON}++){{1,3}}(?=[\\/]) | {_PERSON}++(?:[ ](?-i:[A-Z])[\w.'-]*+){{0,2}})
        """,
        *("home", "users", "documents and settings", "mail", "~"),
    ),
    _rule("<location>", r"geo:-?[\d.,-]++", "geo:"),
    _rule("<location>", r"\d{1,3}[ ]?°[ ]?\d{1,2}\W{1,3}[\d.]*+\W{0,3}[NSEW]?", "°"),
    _rule(
        _place,
        r"\d{1,3}\.\d{3,}+°?[ ]?[NSEW]?(?:[ ]?[,;/][ ]?|[ ])-?\d{1,3}\.\d{3,}+(?:°?[ ]?[NSEW]\b)?",
        ".",
    ),
    _rule("<mac>", r"[0-9a-f](?<![0-9a-f].)[0-9a-f](?:[:-][0-9a-f]{2}){5,}+(?![0-9a-f])", ":", "-"),
    _rule("<ip>", r"\d(?<!\d\d)(?<!\d\.\d)\d{0,2}(?:\.\d{1,3}){3}(?!\d)", "."),
    _rule(_listed, r"\d(?<![\d,]\d)\d{1,2}(?:,\d{1,3}){3}(?!,?\d)", ","),
    _rule("<ip>", r"(?<![a-z0-9])(?:ip(?:-\d{1,3}){4} | 0x[0-9a-f]{8}(?![0-9a-z]))", "ip-", "0x"),
    _rule(
        _groups,
        r"""
        (?<![0-9a-z])(?:[0-9a-f]{1,4}(?![0-9a-z]) | (?=::))
        (?:::?[0-9a-f]{1,4}(?![0-9a-z]))++(?:::(?![0-9a-z]))?(?:%[\w.]++)?
        """,
        ":",
    ),
    _rule(
        _iban,
        r"(?<![0-9a-z])[a-z]{2}\d{2}(?:[ -]?[0-9a-z]{4}){2,7}(?:[ -]?[0-9a-z]{1,3})?(?![0-9a-z])",
    ),
    _rule(_number, r"\d(?<!\d\d)(?:[ ()./_-]{0,3}\d){6,}+"),
    _rule(_random, r"[\w+=-](?<![\w+=-]{2})[\w+/=-]{19,}+"),
)
"""All rules, in the order of their application.

Some patterns match a first character and look behind it afterwards, because the search for it then runs in C.
"""
