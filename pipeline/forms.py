"""Forms of the values of settings: texts, host names, server lists and URLs, checked before a library gets them."""

import ipaddress
import os
import re
import unicodedata
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field, SecretStr

MAX_PORT = 65_535
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_MAX_HOST = 253
_SERVER = re.compile(r"(\[(?P<ip>[^\[\]]*)\]|(?P<name>[^\[\]:]*)):(?P<port>[0-9]{1,5})")
_HTTP_URL = re.compile(r"https?://(?P<login>[^/@]+@)?[^/@?#\s]+([/?][\x21-\x7e]*)?")

_NO_TEXT = {"Cc", "Cs"}  # control characters; surrogates, as which Python reads bytes that aren't UTF-8


def _is_host(text: str) -> bool:
    """True for a host name or an IPv4 address."""
    return len(text) <= _MAX_HOST and all(map(_LABEL.fullmatch, text.removesuffix(".").split(".")))


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """True for the address or the usual name of this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.removesuffix(".").lower() == "localhost"


def _checked(text: str) -> str:
    """Return the text; refuse line breaks and other control characters, which come with the content of a file."""
    decoded = _decoded(text)
    if any(unicodedata.category(character) in _NO_TEXT for character in decoded):
        raise ValueError("text without line breaks, control characters and bytes that aren't UTF-8")
    return decoded


def _decoded(text: str) -> str:
    """Return the text of UTF-8 bytes that Python has read as surrogates, as it does in an ASCII locale."""
    try:
        return text if text.isprintable() else os.fsencode(text).decode()
    except UnicodeError:
        return text


def _secret(value: SecretStr) -> SecretStr:
    return SecretStr(_checked(value.get_secret_value()))


def _path(path: Path) -> Path:
    _checked(str(path))
    return path  # as the file system has it


def _file(path: Path) -> Path:
    try:
        usable = path.is_file() and os.access(path, os.R_OK)
    except (OSError, ValueError):  # no path, for example the content of the file
        usable = False
    if not usable:
        raise ValueError("a file that exists and can be read")
    return path


def _host(text: str) -> str:
    if not (_is_host(text) or _is_ipv6(text)):
        raise ValueError("a host name or an IP address")
    return text


def _servers(text: str) -> str:
    servers = [server.strip() for server in text.split(",")]
    for server in servers:
        match = _SERVER.fullmatch(server)
        reachable = match and (_is_host(match["name"]) if match["ip"] is None else _is_ipv6(match["ip"]))
        if not match or not reachable or not 1 <= int(match["port"]) <= MAX_PORT:
            raise ValueError("host:port, comma-separated")
    return ",".join(servers)


def _http_url(text: str) -> str:
    match = _HTTP_URL.fullmatch(text)
    if match and match["login"]:  # addresses appear in the log
        raise ValueError("an address without a login; user and password have their own settings")
    if not match or not _is_reachable(text):
        raise ValueError("http://host:port or https://host:port")
    return text


def _is_reachable(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:  # an invalid port or IPv6 address
        return False
    return port != 0 and not parts.netloc.endswith(":") and (_is_ipv6(host) if "[" in url else _is_host(host))


Port = Annotated[int, Field(ge=1, le=MAX_PORT)]
Seconds = Annotated[float, Field(ge=0.001, le=86_400, allow_inf_nan=False)]
Text = Annotated[str, AfterValidator(_checked)]
Secret = Annotated[SecretStr, AfterValidator(_secret)]
File = Annotated[Path, AfterValidator(_file)]
PathText = Annotated[Path, AfterValidator(_path)]
Host = Annotated[str, AfterValidator(_host)]
Servers = Annotated[str, AfterValidator(_servers)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]


class SettingsSection(BaseModel, extra="forbid", frozen=True):
    """One section of the settings."""
