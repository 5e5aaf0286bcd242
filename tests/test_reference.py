"""The reference in HTML, where pdoc is installed."""

import importlib
import runpy
from pathlib import Path

import pytest

pytest.importorskip("pdoc")
BUILD = runpy.run_path(str(Path(__file__).parents[1] / "docs" / "build.py"))


def test_everything_public_has_its_place(tmp_path):
    BUILD["main"](tmp_path)
    for name in filter(BUILD["installed"], BUILD["MODULES"]):
        page = tmp_path.joinpath(*name.split(".")).with_suffix(".html").read_text()
        for member in getattr(importlib.import_module(name), "__all__", ()):
            assert f'id="{member}"' in page
