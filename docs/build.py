"""Builds the reference in HTML: python docs/build.py [FOLDER], docs/html without it.

Needs the extra ``docs``. What needs PyTorch or Lightning is left out where these are not
installed. Every warning is an error.
"""

import contextlib
import sys
import warnings
from importlib import import_module
from pathlib import Path

import pdoc

import gpu_patch

MODULES = (
    "gpu_patch",
    "gpu_patch.patching",
    "gpu_patch.images",
    "gpu_patch.images.readers",
    "gpu_patch.chunks",
    "gpu_patch.feed",
    "gpu_patch.careamics",
    "gpu_patch.careamics.lightning",
    "gpu_patch.torch",
    "gpu_patch.lightning",
    "gpu_patch.device",
    "gpu_patch.plots",
)
OPTIONAL = ("torch", "lightning", "pytorch_lightning", "careamics")


def installed(module: str) -> bool:
    """Tell whether a module can be imported; say so where not."""
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in OPTIONAL:
            raise
        print(f"left out: {module} needs {error.name}")
        return False
    return True


def members(cls: pdoc.doc.Class) -> list[pdoc.doc.Doc]:
    """Return what a class has from this package; its bases may have no page."""
    return [m for m in cls.members.values() if m.taken_from[0].partition(".")[0] == "gpu_patch"]


def main(folder: Path) -> None:
    """Build the reference.

    Parameters
    ----------
    folder : Path
        Where to.
    """
    modules = [module for module in MODULES if installed(module)]
    warnings.simplefilter("error")
    # pdoc looks for inherited keys in bases that a TypedDict has lost, before Python 3.12, and for
    # the types of a NamedTuple in the module that makes them
    warnings.filterwarnings("ignore", "Cannot determine where .*Specs.* is taken from")
    warnings.filterwarnings("ignore", "Error parsing type annotation .*__init__")
    # pdoc shows what a class inherits at its base, which has no page where it is private: such
    # members, `construct_batch` among them, stand at the class itself
    pdoc.doc.Class.own_members = property(members)
    pdoc.render.configure(docformat="numpy", footer_text=f"gpu_patch {gpu_patch.__version__}")
    folder = folder.absolute()
    with contextlib.chdir(Path(__file__).parent):  # where no folder has a module's name
        pdoc.pdoc(*modules, output_directory=folder)
    print(f"written: {folder / 'gpu_patch.html'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "html")
