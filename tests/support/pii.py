"""A corpus of personal data and secrets as they occur in events, and records that carry them in each text field."""

import io
import json
import unicodedata
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import fastavro

from pipeline.catalog import Family
from pipeline.producer.encode import Encoder
from pipeline.schema.framing import frame_single_object
from pipeline.schema.privacy import Keep, Metadata, UserAgent


class Secret(NamedTuple):
    """A string that must not be stored."""

    category: str
    text: str
    """As somebody writes it."""
    core: str
    """The part of it that must not be found anywhere."""


_WRITTEN: dict[str, tuple[str, ...]] = {
    "e-mail address": (
        "alice.archer@example.com",
        "Bob+news@mail.example.co.uk",
        "o'neill_42@sub.example.org",
        "jörg.größer@bücher.example",
        "ユーザー@例え.jp",
        '"carol cooper"@example.net',
        "dave@[203.0.113.77]",
        "root@build-host-7",
        "erin (at) example (dot) com",
        "frank[at]example[dot]org",
        "gina\\@example.com",
        "hugo(work)@example.com",
        "ines @ example.com",
        "jan\u034f@example.com",
        "kai@\ufe0fexample.com",
        "lea\uff0540example.com",
        "mia%2525252540example.com",
        "nick%25%32%354%30example.com",
        "ola\\u{40}example.com",
        "pia=40example.com",
        "quin@example\u3002com",
        "rosa\\u0001@example.com",
    ),
    "IPv4 address": (
        "203.0.113.45",
        "198.51.100.210:8443",
        "10.20.30.40/24",
        "ip-10-21-32-43",
        "192[.]0[.]2[.]146",
        "0xC0A80D25",
        "192,168,13,37",
        "192\u3002168\u300213\u300238",
    ),
    "IPv6 address": (
        "2001:db8:85a3::8a2e:370:7334",
        "2001:0DB8:0000:0000:0000:FF00:0042:8329",
        "fe80::1ff:fe23:4567:890a%eth0",
        "[2001:db8::dead:beef]:443",
        "2001:db8:1:2:3:4:5:6",
        "peer:2001:db8:85a3::8a2e:370:7335",
        "ip:fe80::1ff:fe23:4567:890b",
        "::ffff:c0a8:d25",
    ),
    "MAC address": ("3c:22:fb:9a:41:d7", "3C-22-FB-9A-41-D8", "3c:22:fb:ff:fe:9a:41:d9"),
    "JSON web token": (
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.Qm9vZ2llV29vZ2llQnVnbGVCb3k",
        "eyJ0eXAiOiJKV1QifQ.eyJlbWFpbCI6ImFAYi5jIn0.",
        "eyJhbGciOiJSU0EtT0FFUCJ9.OKOawDo13gRp2ojaHV7LFpZcgV7T6DVZKTyKOMTYUmKoTCVJRgckCL9kiMT03JGe",
    ),
    "API key": (
        "sk-proj-T3BlbkFJ9xkq2ZrW8vLm",
        "sk_live_4eC39HqLyjWDarjtT1zdp7dc",
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "github_pat_11ABCDEFG0abcdefghij_klmnop",
        "glpat-x9Yz3Kq7Lm2Np5Rt8Vw1",
        "xoxb-263594206564-FGqddMF8t08v8N7Oq4i57vs1",
        "AKIAIOSFODNN7EXAMPLE",
        "AIzaSyDaGmWKa4JsXZ-HjGw7ISLn_3namBGewQe",
        "ya29.a0AfH6SMBx7Kq9-long_access",
        "hf_QwErTyUiOpAsDfGhJkLz",
        "npm_8Kd93jfKs02mLq84nvBz",
        "SG.ngeVfQFYQlKU0ufo8x5d1A.TwL2iGABf9DHoTf09kqe",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "9f86d081884c7d659a2feaa0c55ad015",
        "2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae",
        "YWxpY2U6aHVudGVyMjpzZWNyZXQxMjM0NTY3OA==",
    ),
    "telephone number": (
        "+49 151 23456789",
        "+1 (415) 555-0142",
        "(030) 9017-4455",
        "0049-30-90174456",
        "0151/23456790",
        "415.555.0143",
        "+441632960961",
        "00441632960962",
        "+33_6_12_34_56_78",
        "٠١٥١٢٣٤٥٦٧٩١",
        "555\u2013123\u20134567",
        "+1 555\u2011123\u20114568",
        "555\u2212123\u22124569",
    ),
    "card number": (
        "4111 1111 1111 1111",
        "5500005555555559",
        "3782-822463-10005",
        "6011.0009.9013.9424",
        "4111\u20141111\u20141111\u20141112",
    ),
    "bank account": (
        "DE89 3704 0044 0532 0130 00",
        "GB29NWBK60161331926819",
        "fr1420041010050500013m02606",
        "NL91-ABNA-0417-1643-00",
        "NO9386011117947",
    ),
    "identity number": ("078-05-1120", "219 09 9999", "1 85 05 78 006 084 36"),
    "place": ("52.520008, 13.404954", "-33.856784 151.215297", "geo:48.85837,2.294481", "52°31'12.0\"N 13°24'17.8\"E"),
    "private key": ("-----BEGIN RSA PRIVATE KEY-----MIIEowIBAAKCAQEA7bq98Lk-----END RSA PRIVATE KEY-----",),
}
_WITHIN: dict[str, tuple[tuple[str, str], ...]] = {
    "name in a path": (
        ("/home/grace.hopper/.ssh/id_rsa", "grace.hopper"),
        ("/Users/heidi-k/Library/Logs", "heidi-k"),
        (r"C:\Users\Ivan Ivanov\AppData", "Ivan Ivanov"),
        (r"C:\\Users\\judy.j\\Desktop", "judy.j"),
        ("c:/users/mallory99/x.md", "mallory99"),
        ("file:///home/niaj_b/notes.md", "niaj_b"),
        ("home/olivia_o/posts/ep-001.md", "olivia_o"),
        ("~peggy.p/public_html/", "peggy.p"),
        (r"D:\Documents and Settings\rupert.r\x", "rupert.r"),
        ("/mnt/c/Users/sybil77/src", "sybil77"),
        ("/var/mail/trent.t", "trent.t"),
        ("/HOME/VICTOR.V/SRC", "VICTOR.V"),
        (r"C:\Users\Wanda Wilson", "Wanda Wilson"),
        ("/home/./xaver.x/src", "xaver.x"),
        ("/home/../home/yvonne.y", "yvonne.y"),
        ("~zacharias", "zacharias"),
    ),
    "credentials in an address": (
        ("https://walter:hunter2hunter@example.org/a", "hunter2hunter"),
        ("postgres://svc:pa55-w0rd-7@db.example.org:5432/x", "pa55-w0rd-7"),
        ("redis://:onlyapassw0rd@cache.example.org", "onlyapassw0rd"),
        ("postgres://svc:pas/sw0rd-8@db.example.org", "pas/sw0rd-8"),
        ("https://x.example/to/https://svc:pa55-w0rd-9@x.example/", "pa55-w0rd-9"),
    ),
    "query of an address": (
        ("https://example.org/search?q=my+illness&lang=en", "my+illness"),
        ("https://example.org/cb?code=4/P7q7W91a", "P7q7W91a"),
        ("https://example.org/reset#key-zq81", "key-zq81"),
        ("/login?user=yolanda.y", "yolanda.y"),
    ),
    "authorization": (
        ("Authorization: Bearer mF_9.B5f-4.1JqM", "mF_9.B5f-4.1JqM"),
        ("authorization: basic d2FsdGVyOmg=", "d2FsdGVyOmg="),
        ("bearer opaque-opaque-words", "opaque-opaque-words"),
        ("Authorization: Token s3cr3tvalue", "s3cr3tvalue"),
        ("Authorization: ApiKey quebec-romeo", "quebec-romeo"),
        ("Proxy-Authorization: Negotiate YIIsierra", "YIIsierra"),
        ('Authorization: Digest username="x", response="tango-uniform"', "tango-uniform"),
    ),
    "cookie": (
        ("Cookie: theme=dark; who=zoe.z", "zoe.z"),
        ("Set-Cookie: id=a3fWa-b7; Path=/", "a3fWa-b7"),
        ("PHPSESSID=r2t5uvjq435r4q7", "r2t5uvjq435r4q7"),
        ("JSESSIONID=5F4DCC3B5AA765D6", "5F4DCC3B5AA765D6"),
        ("sessionid:38afes7a8", "38afes7a8"),
        ("csrftoken=u32t4o3tb3gg43", "u32t4o3tb3gg43"),
        ("Set-Cookie2: id=b4gXb-c8", "b4gXb-c8"),
    ),
    "password": (
        ("password=correct-horse", "correct-horse"),
        ('{"api_key": "zulu-yankee"}', "zulu-yankee"),
        ("DB_PASSWORD: tr0ub4dor", "tr0ub4dor"),
        ("client_secret='xray whiskey'", "xray whiskey"),
        ("access_token=victoruniform", "victoruniform"),
        (':password=>"alfa01xx"', "alfa01xx"),
        ("password=>bravo02x", "bravo02x"),
        ("<password>charlie3</password>", "charlie3"),
        ("pass=delta04x", "delta04x"),
        ("passcode: echo05xx", "echo05xx"),
        ("--password foxtrot6", "foxtrot6"),
        ("--db-password=golf07xx", "golf07xx"),
        ('"password":["hotel08x"]', "hotel08x"),
        ("password := india09x", "india09x"),
        ("password=julie;10secret", "10secret"),
        ('password="kilo\\"er11 x"', "er11 x"),
        ('password="lima12 unfinished', "lima12 unfinished"),
        (r"{\"password\":\"mike13 x\"}", "mike13 x"),
        ("Passwort: november14", "november14"),
        ("secret: oscar-15", "oscar-15"),
        ("signature=papapapa", "papapapa"),
    ),
    "private key": (
        ("-----BEGIN PRIVATE KEY-----\nMIIEdash-ed/body==\n-----END PRIVATE KEY-----", "ed/body=="),
        ("-----BEGIN PGP PRIVATE KEY BLOCK-----\n\ncut-off/body", "off/body"),
    ),
}


def _corpus() -> Iterator[Secret]:
    written = [Secret(kind, text, text) for kind, texts in _WRITTEN.items() for text in texts]
    written += [Secret(kind, text, core) for kind, pairs in _WITHIN.items() for text, core in pairs]
    yield from written
    for kind in ("e-mail address", "IPv6 address", "telephone number", "card number", "bank account"):
        text = _WRITTEN[kind][0]
        forms = {
            text.upper(),
            quote(text, safe=""),
            "".join(f"%{byte:02x}" for byte in text.encode()),
            quote(quote(text, safe=""), safe=""),
            "".join(f"&#{ord(character)};" for character in text),
            "".join(f"\\u{ord(character):04x}" for character in text),
            "".join(chr(ord(character) + 0xFEE0) if "!" <= character <= "~" else character for character in text),
            "\u200b".join(text),
        }
        yield from (Secret(kind, form, form) for form in sorted(forms - {text}))


CORPUS = tuple(_corpus())
"""Each of them is told from all others by its core."""


def text_fields(family: Family) -> list[str]:
    """The fields that accept open text."""
    schema = family.schema
    return [field.name for field in schema.fields if field.privacy is not None and field.privacy != Keep()]


def records(family: Family, event: dict[str, Any], field: str) -> list[bytes]:
    """Record values that carry the corpus in one field, in every form that the field allows."""
    return [record(family, event, field, text) for secret in CORPUS for text in _carried(family, field, secret.text)]


def searched(value: Any) -> str:
    """A stored value in a form for searching, in which no representation hides a character."""
    if isinstance(value, str):
        return f"{value}\n{searched(_read(value))}" if value.startswith("{") else value
    if isinstance(value, dict):
        return "\n".join(map(searched, [*value, *value.values()]))
    return "\n".join(map(searched, value)) if isinstance(value, (list, tuple)) else str(value)


def found(stored: str) -> set[Secret]:
    """The secrets of the corpus in a text, as written or decoded, in either case."""
    plain = unicodedata.normalize("NFKC", unquote(stored))
    haystack = f"{stored}\n{plain}".lower()
    return {secret for secret in CORPUS if secret.core.lower() in haystack}


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return ()


def _carried(family: Family, field: str, text: str) -> list[str]:
    match family.schema.by_name[field].privacy:
        case UserAgent():
            shapes = ("{}", "{}bot/1.0", "{}/7.0 CFNetwork/1410 Darwin/22", "Mozilla/5.0 ({}) Chrome/{}.0", "{} spider")
            return [shape.replace("{}", text) for shape in shapes]
        case Metadata(keys):
            known = next(iter(keys))
            return [
                json.dumps({known: text, "note": text, text: 1}),
                json.dumps({known: {"a": [text, {text: [[text]]}]}, "n": [True, None, text]}, ensure_ascii=False),
                *([f'{{"{known}": {text}, "n": {text}}}'] if text.isascii() and text.isdigit() else []),
            ]
    return [
        text,
        f"could not serve {text}, giving up",
        f"key:{text}",
        f"key={text}",
        f"https://host.example/{quote(text, safe=':/?#[]@+=;~')}",
    ]


def record(family: Family, event: dict[str, Any], field: str, text: str) -> bytes:
    """A record value with this text in one field, even against the field's pattern."""
    encoder, stream = Encoder(family), io.BytesIO()
    fastavro.schemaless_writer(stream, encoder._schema, {**encoder._values(event), field: text})
    return frame_single_object(family.schema.fingerprint, stream.getvalue())
