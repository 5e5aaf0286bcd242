"""Compiles the CPU's kernels into the wheel; without a compiler it is pure, and NumPy computes.

For another platform, GPU_PATCH_WHEEL names one of `TARGETS`; zig, of PyPI's ziglang, compiles then.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VARIABLE = "GPU_PATCH_WHEEL"
TARGETS = {
    "manylinux_2_17_x86_64": ("x86_64-linux-gnu.2.17", "x86_64", ".so"),
    "manylinux_2_17_aarch64": ("aarch64-linux-gnu.2.17", "aarch64", ".so"),
    "macosx_11_0_x86_64": ("x86_64-macos.11.0", "x86_64", ".dylib"),
    "macosx_11_0_arm64": ("aarch64-macos.11.0", "aarch64", ".dylib"),
    "win_amd64": ("x86_64-windows-gnu", "x86_64", ".dll"),
}
"""By the wheel's platform: zig's name of it, the architecture, what libraries' names end with."""


class Kernels(BuildHookInterface):
    """Hook of the wheel, and of an editable install, which keeps the libraries in the checkout."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and name the platform where there is something of it."""
        build = _load(Path(self.root, "gpu_patch", "_host", "build.py"))
        self._folder = Path(tempfile.mkdtemp())
        if version == "editable":
            paths, text = build.build_with_any(build.HERE)
        elif target := os.environ.get(VARIABLE):
            name, architecture, suffix = TARGETS[target]
            command = [sys.executable, "-m", "ziglang", "c++", "-target", name]
            paths, text = (
                build.build(self._folder, command, architecture=architecture, suffix=suffix),
                shlex.join(command),
            )
        else:
            target = _platform(build.machine())
            paths, text = build.build_with_any(self._folder)
        if not paths:
            self.app.display_warning(f"no compiled CPU kernels, NumPy computes instead: {text}")
            return
        self.app.display_info(f"CPU kernels compiled by {text}")
        if version == "editable":
            return
        for path in paths:
            build_data["force_include"][str(path)] = f"gpu_patch/_host/{path.name}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{target}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what is in the wheel now."""
        shutil.rmtree(self._folder)


def _platform(machine: str) -> str:
    """Return the name of this platform, as a wheel has it."""
    if sys.platform == "darwin":  # Python may be for several architectures, the kernels are not
        return f"macosx_11_0_{'arm64' if machine == 'aarch64' else machine}"
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


def _load(path: Path) -> ModuleType:
    """Load a module of the package, which itself needs NumPy."""
    spec = importlib.util.spec_from_file_location("gpu_patch_host_build", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
