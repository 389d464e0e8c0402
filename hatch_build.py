"""Build hook: compiles the core of `pipeline/columns/core.zig` with the Zig of the `ziglang` package.

Where that can't be done, the package is built without the core. The worker says so when it starts, and numpy does all.
"""

import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path("pipeline", "columns", "core.zig")
LIBRARY = SOURCE.with_name("libchimera_core.so")
_SECONDS = 600


class CoreBuildHook(BuildHookInterface[Any]):
    """Hook that hatchling calls before it builds a wheel, or installs the package as editable."""

    def initialize(self, _version: str, build_data: dict[str, Any]) -> None:
        """Compile the core, and have it packed."""
        if self.target_name != "wheel":
            return  # the library of an editable install stays as it is
        root = Path(self.root)
        if why_not := _compile(root):
            self.app.display_warning(f"The compiled core isn't built, numpy does its work: {why_not}")
            return
        build_data["artifacts"].append(f"/{LIBRARY.as_posix()}")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"


def _compile(root: Path) -> str:
    """Compile the core; return the reason if that can't be done."""
    library = root / LIBRARY
    with tempfile.TemporaryDirectory() as directory:
        # Bounds and overflow are checked at run time, and any CPU of this kind can run it.
        options = ["-dynamic", "-O", "ReleaseSafe", "-mcpu=baseline", "-fstrip"]
        made = Path(directory, library.name)
        places = [f"-femit-bin={made}", "--cache-dir", directory, "--global-cache-dir", directory]
        command = [sys.executable, "-m", "ziglang", "build-lib", str(root / SOURCE), *options, *places]
        try:
            library.unlink(missing_ok=True)  # a worker that runs keeps the old file
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)
            if done.returncode:
                return done.stderr.strip()
            library.write_bytes(made.read_bytes())
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
    return ""
