"""Names of results, and formats by the endings of names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

FORMATS = {
    "ome-zarr": (".ome.zarr", ".zarr"),
    "ome-tiff": (".ome.tif", ".ome.tiff", ".tif", ".tiff"),
    "npy": (".npy",),
}
"""Formats, each with the endings that mean it; the first is the one given to new files."""


class ResultNames(NamedTuple):
    """What the results of a prediction are called.

    Attributes
    ----------
    folder : Path or None
        Where they are; None for arrays.
    names : tuple of str
        Name of each image's result, without ending.
    variants : tuple of str
        What is appended to the names, such as "_std": a result for each.
    suffix : str
        Ending of the files or folders.
    """

    folder: Path | None
    names: tuple[str, ...]
    variants: tuple[str, ...]
    suffix: str

    @property
    def results(self) -> list[str]:
        """Every result: names with variants."""
        return [name + variant for name in self.names for variant in self.variants]

    @property
    def files(self) -> list[str]:
        """Names of the files or folders, with ending."""
        return [result + self.suffix for result in self.results]

    @property
    def paths(self) -> list[Path]:
        """Where they are in the end."""
        return [(self.folder or Path()) / file for file in self.files]


def ending(name: str) -> tuple[str, str] | None:
    """Return the ending of a name and the format that it means, None where it means none."""
    found = [
        (name[-len(suffix) :], format)
        for format, suffixes in FORMATS.items()
        for suffix in suffixes
        if name.lower().endswith(suffix) and len(name) > len(suffix)
    ]
    return max(found, key=lambda pair: len(pair[0])) if found else None


def result_names(sources: Sequence[str | Path], variants: Sequence[str]) -> list[str]:
    """Return a name for each image, such that all of them with all variants differ.

    Examples
    --------
    >>> result_names(["plate.zarr/A/1/0", "cells.zarr.zip", "plate.ozx, A/2/0"], [""])
    ['plate_A_1_0', 'cells', 'plate_A_2_0']
    >>> result_names(["a/cells.ome.tif", "b/cells.npy", "c.tif, series 1", "array"], [""])
    ['cells', 'cells_1', 'c_series_1', 'array']
    """
    names: list[str] = []
    taken: set[str] = set()
    for source in sources:
        stem, count = _stem(str(source)), 0
        name = stem
        while any((name + variant).lower() in taken for variant in variants):
            count += 1
            name = f"{stem}_{count}"
        taken |= {(name + variant).lower() for variant in variants}
        names.append(name)
    return names


def _stem(source: str) -> str:
    """Return the name of a file without its ending; what follows a comma says which image of it."""
    file, *inside = source.split(", ")
    parts = Path(file).parts or ("",)
    # an image of a plate is named after its well too
    first = max((i for i, part in enumerate(parts) if part.lower().endswith(".zarr")), default=-1)
    name, *deeper = parts[first:]
    name = name.removesuffix(".zip") if name.lower().endswith(".zarr.zip") else name
    known = ending(name)
    stem = name[: -len(known[0])] if known else Path(name).stem
    return (
        "_".join([stem, *deeper, *inside]).replace(" ", "_").replace("/", "_").lstrip(".")
        or "image"
    )
