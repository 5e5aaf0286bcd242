"""The reference in HTML, where pdoc is installed."""

import importlib
import inspect
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
            found = getattr(importlib.import_module(name), member)
            for attribute in public_attributes(found) if inspect.isclass(found) else ():
                assert f'id="{member}.{attribute}"' in page


def public_attributes(cls):
    """Methods and properties that this package has given a class or its bases."""
    for base in cls.__mro__:
        for name, value in vars(base).items() if base.__module__.startswith("gpu_patch") else ():
            kinds = (property, staticmethod, classmethod)
            if not name.startswith("_") and (inspect.isfunction(value) or isinstance(value, kinds)):
                yield name
