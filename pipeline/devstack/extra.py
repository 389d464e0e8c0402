"""The parts of the development stack that only its extra installs, imported when they are used."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError


def require(module: str) -> Any:
    """Import a module of the extra.

    Raises:
        ConfigError: it isn't installed; says what to install.
    """
    try:
        return import_module(module)
    except ImportError:
        raise _missing(module) from None


def package_directory(package: str) -> Path:
    """Where a package of the extra is installed, found without importing it.

    Raises:
        ConfigError: it isn't installed; says what to install.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise _missing(package)
    return Path(spec.submodule_search_locations[0])


def _missing(module: str) -> ConfigError:
    return ConfigError(
        f"the development stack needs {module}, which isn't installed: pip install 'chimera-pipeline[devstack]'"
    )
