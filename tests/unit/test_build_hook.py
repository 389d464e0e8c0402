"""Hook of the build: the core is compiled into a wheel, and nothing else is touched."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

_FILE = Path(__file__).parents[2] / "hatch_build.py"


class _App:
    """Application of hatchling, with what it was told."""

    def __init__(self) -> None:
        self.warnings = list[str]()

    def display_warning(self, text: str) -> None:
        self.warnings.append(text)


def _hook(root: Path, target: str, app: _App) -> Any:
    spec = importlib.util.spec_from_file_location("hatch_build", _FILE)
    assert spec
    assert spec.loader
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    library = root / module.LIBRARY
    library.parent.mkdir(parents=True)
    library.write_bytes(b"built before")
    hook = module.CoreBuildHook(str(root), {}, None, None, str(root), target, app)
    return hook, library


def test_an_sdist_leaves_the_library_of_an_editable_install(tmp_path: Path) -> None:
    """Without it, the next worker would decode with numpy."""
    hook, library = _hook(tmp_path, "sdist", _App())
    data: dict[str, Any] = {"artifacts": []}
    hook.initialize("standard", data)
    assert library.read_bytes() == b"built before"
    assert data == {"artifacts": []}


@pytest.mark.parametrize("source", [None, "no Zig"])
def test_a_wheel_without_the_core_is_built_where_it_cannot_be_compiled(tmp_path: Path, source: str | None) -> None:
    """With a warning, and without the library of another build."""
    app = _App()
    hook, library = _hook(tmp_path, "wheel", app)
    if source:
        library.with_name("core.zig").write_text(source)
    data: dict[str, Any] = {"artifacts": []}
    hook.initialize("standard", data)
    assert not library.exists()
    assert data == {"artifacts": []}
    (warning,) = app.warnings
    assert "The compiled core isn't built, numpy does its work: " in warning
