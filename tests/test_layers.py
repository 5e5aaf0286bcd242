"""The layers of docs/architecture.md: no module imports from above, and none in a circle."""

import ast
from pathlib import Path

import pytest

import gpu_patch
from gpu_patch.optional import PACKAGES

PACKAGE = Path(gpu_patch.__file__).parent
LAYERS = (
    ("checks", "specs", "words", "optional", "distinct"),
    ("threads",),
    ("geometry", "draws", "epilogue", "augmentation", "tiling", "sliding", "progress", "locations"),
    ("sources",),
    ("table",),
    ("records",),
    ("device",),
    ("finite",),
    ("patching",),
    ("chunks",),
    ("pages",),
    ("_numpy", "_host", "_cuda"),
    ("ops",),
    ("images",),
    ("constructors",),
    ("feed", "predict"),
    ("torch", "lightning", "careamics"),
    ("plots",),
    ("cli", "__main__"),
)
"""Of the rooms of the package, from below."""
EXCEPTIONS = {
    ("gpu_patch.predict.model", "gpu_patch.torch"),
}
"""Imported where they are used, on a GPU, and with PyTorch."""


def modules():
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        found[name.removesuffix(".__init__")] = path
    return found


MODULES = modules()


def imported(name):
    """The modules of this package that a module imports, in functions and for types too."""
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gpu_patch"):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)


def room(name):
    return name.split(".")[1] if "." in name else ""


def layer(name):
    (found,) = (i for i, rooms in enumerate(LAYERS) if room(name) in rooms)
    return found


@pytest.mark.parametrize("name", sorted(name for name in MODULES if room(name)))
def test_nothing_is_imported_from_above(name):
    above = {
        other
        for other in imported(name)
        if room(other) and layer(other) > layer(name) and (name, other) not in EXCEPTIONS
    }
    assert not above


def test_no_module_imports_itself_by_way_of_others():
    edges = {name: set(imported(name)) - {name} for name in MODULES}

    def reach(start):
        seen, waiting = set(), [*edges[start]]
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting += edges[name]
        return seen

    assert [name for name in edges if name in reach(name)] == []


def test_the_backends_do_not_know_each_other():
    for name in MODULES:
        backends = {"_numpy", "_host", "_cuda"}
        if room(name) in backends:
            assert not (backends - {room(name)}) & set(map(room, imported(name))), name


def test_optional_packages_are_imported_by_one_module():
    """But for rooms of a package, and a module with a subclass, imported once the package is."""
    of_packages = ("torch", "lightning", "careamics", "plots", "cli", "optional")
    for name in MODULES:
        if room(name) in of_packages or name == "gpu_patch.predict.outputs.ome_zarr.chunk_store":
            continue
        for node in ast.walk(ast.parse(MODULES[name].read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            found = {imported.partition(".")[0] for imported in names}
            assert not found & {module.partition(".")[0] for module in PACKAGES}, name
