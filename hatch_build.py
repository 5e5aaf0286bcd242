"""Compiles the CPU's kernels into the wheel; without a compiler it is pure, and NumPy computes."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Kernels(BuildHookInterface):
    """Hook of the wheel, and of an editable install, which keeps the libraries in the checkout."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and name the platform where there is something of it."""
        build = _load(Path(self.root, "gpu_patch", "_host", "build.py"))
        self._folder = Path(tempfile.mkdtemp())
        paths, text = build.build_with_any(build.HERE if version == "editable" else self._folder)
        if not paths:
            self.app.display_warning(f"no compiled CPU kernels, NumPy computes instead: {text}")
            return
        self.app.display_info(f"CPU kernels compiled by {text}")
        if version == "editable":
            return
        for path in paths:
            build_data["force_include"][str(path)] = f"gpu_patch/_host/{path.name}"
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        if sys.platform == "darwin":  # Python may be for several architectures, the kernels are not
            platform = f"macosx_11_0_{'arm64' if build.machine() == 'aarch64' else 'x86_64'}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what is in the wheel now."""
        shutil.rmtree(self._folder)


def _load(path: Path) -> ModuleType:
    """Load a module of the package, which itself needs NumPy."""
    spec = importlib.util.spec_from_file_location("gpu_patch_host_build", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
