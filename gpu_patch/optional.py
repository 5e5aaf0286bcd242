"""Packages that gpu_patch can do without: imported where something needs them, by this module."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple


def imported(module: str, purpose: str, extra: str | None = None) -> Any:
    """Import a module of an optional package.

    Parameters
    ----------
    module : str
        One of `PACKAGES`.
    purpose : str
        What needs it, as the beginning of a sentence.
    extra : str, optional
        Which of gpu_patch's extras the user is to install; default the package's own.

    Returns
    -------
    module
        The module.

    Raises
    ------
    ImportError
        It is not installed, or too old; says what to install.
    """
    package = PACKAGES[module]
    if extra is not None:
        package = package._replace(extras=(extra,))
    try:
        loaded = _import(module)
    except ImportError as error:
        raise ImportError(f"{purpose} needs {package.name}: {package.command}") from error
    if problem := package.problem(loaded):
        raise ImportError(f"{purpose} needs {package.name}{problem} {package.source}")
    return loaded


def if_installed(module: str) -> Any | None:
    """Import a module that something is nicer with; None where it is not installed."""
    try:
        return _import(module)
    except ImportError:
        return None


class Package(NamedTuple):
    """An optional package.

    Attributes
    ----------
    name : str
        What messages call it.
    extras : tuple of str
        Of gpu_patch; each of them installs it.
    problem : callable
        Takes the module; returns "" where it is new enough, else the part of the message between
        the name and what to install.
    """

    name: str
    extras: tuple[str, ...]
    problem: Callable[[Any], str] = lambda _: ""

    @property
    def source(self) -> str:
        """What pip is given."""
        return " or ".join(f"'gpu_patch[{extra}]'" for extra in self.extras)

    @property
    def command(self) -> str:
        """How to install it."""
        return f"pip install {self.source}"


def _old_zarr(zarr: Any) -> str:
    is_new = int(zarr.__version__.partition(".")[0]) >= 3
    return "" if is_new else f", found {zarr.__version__}: pip install"


def _old_czi(czi: Any) -> str:
    is_new = hasattr(czi.CziReader, "enumerate_subblocks_subset")
    return "" if is_new else " 6.1 or newer: pip install --upgrade"


PACKAGES = {
    "bioio": Package("bioio", ("bioio",)),
    "bioio.plugins": Package("bioio", ("bioio",)),
    "cupy": Package("CuPy", ("cuda12", "cuda13")),
    "PIL.Image": Package("Pillow", ("io",)),
    "liffile": Package("liffile", ("lif",)),
    "matplotlib.figure": Package("matplotlib", ("cli",)),
    "nd2": Package("nd2", ("nd2",)),
    "obstore": Package("obstore", ("remote",)),
    "obstore.store": Package("obstore", ("remote",)),
    "pylibCZIrw.czi": Package("pylibCZIrw", ("czi",), _old_czi),
    "tifffile": Package("tifffile", ("io",)),
    "tensorstore": Package("tensorstore", ("fast",)),
    "tqdm": Package("tqdm", ("cli",)),
    "torch": Package("torch", ("torch",)),
    "zarr": Package("zarr 3", ("io",), _old_zarr),
}
"""By the module that is imported."""


def _import(module: str) -> Any:
    # the package first: a module of it may be there when the package itself no longer is
    package, dot, _ = module.partition(".")
    if dot:
        importlib.import_module(package)
    return importlib.import_module(module)
