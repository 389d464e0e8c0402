"""Forms of the values of settings, checked before a library gets them, and the sources of the values.

Sources are environment variables, and files in the folder that CHIMERA_SECRETS_DIR names. A file has the name of a
setting and holds its value: Kubernetes mounts Secrets in that form, Docker its secrets, and systemd its credentials.
"""

import ipaddress
import os
import re
import shlex
import unicodedata
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field, SecretStr
from pydantic_settings import BaseSettings, NestedSecretsSettingsSource, PydanticBaseSettingsSource

from pipeline.errors import ConfigError

SECRETS_DIR = "CHIMERA_SECRETS_DIR"
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


def _remove_command(text: str) -> str:
    """Return the command; refuse one that names no backup: it would remove the same files for each of them."""
    try:
        words = shlex.split(_checked(text))
    except ValueError:  # a quotation mark without its partner
        words = []
    if not words or not any("{name}" in word for word in words[1:]):
        raise ValueError("a command, quoted as in a shell, with {name} in one of its arguments")
    return text


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
RemoveCommand = Annotated[str, AfterValidator(_remove_command)]
File = Annotated[Path, AfterValidator(_file)]
PathText = Annotated[Path, AfterValidator(_path)]
Host = Annotated[str, AfterValidator(_host)]
Servers = Annotated[str, AfterValidator(_servers)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]


class SettingsSection(BaseModel, extra="forbid", frozen=True):
    """One section of the settings."""


def secrets_folder() -> Path | None:
    """Return the folder; None if the variable isn't set, or is empty.

    Raises:
        ConfigError: there is no such folder.
    """
    value = next((value for name, value in os.environ.items() if name.upper() == SECRETS_DIR), "")
    if not value:
        return None
    folder = Path(value)
    try:
        if folder.is_dir():
            return folder
    except (OSError, ValueError):  # a name that is too long, or one with a NUL
        pass
    raise ConfigError(f"{SECRETS_DIR}: expected a folder that exists, got {value!r}")


class SourcedSettings(BaseSettings):
    """Settings of which a value is in the environment or in a file; that of the environment counts if both have one."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read files by section and key, as the environment is read; `.env` isn't read."""
        del settings_cls, dotenv_settings
        return init_settings, env_settings, NestedSecretsSettingsSource(file_secret_settings)


def set_names(prefix: str) -> dict[str, str]:
    """Source, `environment` or `file`, of each name with the prefix, as it is written; it may be no setting.

    Raises:
        ConfigError: there is no such folder, or a file in it can't be read.
    """
    folder = secrets_folder()
    in_files = [each for each in _entries(folder) if each.name.upper().startswith(prefix)] if folder else []
    written: dict[str, str] = {}
    for file in in_files:
        _check(file, file.parent)
        other = written.setdefault(file.name.upper(), file.name)
        if other != file.name:
            raise ConfigError(f"{SECRETS_DIR}: {other} and {file.name} are one setting; expected one of the files")
    in_environment = [name for name in os.environ if name.upper().startswith(prefix) and name.upper() != SECRETS_DIR]
    return dict.fromkeys(written.values(), "file") | dict.fromkeys(in_environment, "environment")


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise ConfigError(f"{SECRETS_DIR}: {folder}: {error.strerror}") from None


def _check(file: Path, folder: Path) -> None:
    """Refuse what pydantic-settings passes by in silence, or ends with a traceback for."""
    if folder.resolve() not in file.resolve().parents:
        raise ConfigError(f"{SECRETS_DIR}: {file} is a link that leads out of the folder; expected a file in it")
    try:
        file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{SECRETS_DIR}: {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{SECRETS_DIR}: {file}: expected text in UTF-8") from None
