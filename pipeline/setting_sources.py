"""Sources of settings: environment variables, and files in the folder that CHIMERA_SECRETS_DIR names.

A file has the name of a setting and holds its value: Kubernetes mounts Secrets in that form, Docker its secrets, and
systemd its credentials.
"""

import os
from pathlib import Path

from pydantic_settings import BaseSettings, NestedSecretsSettingsSource, PydanticBaseSettingsSource

from pipeline.errors import ConfigError

SECRETS_DIR = "CHIMERA_SECRETS_DIR"


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
