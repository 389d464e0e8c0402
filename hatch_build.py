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


class CoreBuildHook(BuildHookInterface[Any]):
    """Hook that hatchling calls before it builds a wheel, or installs the package as editable."""

    def initialize(self, _version: str, build_data: dict[str, Any]) -> None:
        """Compile the core, and have it packed."""
        root = Path(self.root)
        (root / LIBRARY).unlink(missing_ok=True)
        if self.target_name == "wheel" and self._compile(root):
            build_data["artifacts"].append(f"/{LIBRARY.as_posix()}")
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"

    def _compile(self, root: Path) -> bool:
        with tempfile.TemporaryDirectory() as cache:
            # Bounds and overflow are checked at run time, and any CPU of this kind can run it.
            command = [
                sys.executable,
                "-m",
                "ziglang",
                "build-lib",
                str(root / SOURCE),
                "-dynamic",
                "-O",
                "ReleaseSafe",
            ]
            command += ["-mcpu=baseline", "-fstrip", f"-femit-bin={root / LIBRARY}"]
            command += ["--cache-dir", cache, "--global-cache-dir", cache]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            self.app.display_warning(f"The compiled core isn't built, numpy does its work: {done.stderr.strip()}")
        return not done.returncode
