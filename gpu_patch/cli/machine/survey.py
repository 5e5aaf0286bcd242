"""What of this machine gpu_patch can use: versions, devices, CuPy, kernels, optional packages."""

from __future__ import annotations

import importlib
import os
import platform
import re
import warnings
from collections import Counter
from importlib import metadata
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

import numpy as np

import gpu_patch
from gpu_patch import device as devices
from gpu_patch._cuda import loader
from gpu_patch._host import library
from gpu_patch.cli.machine import driver

_CUPY = re.compile(r"(amd-)?cupy|cupy-cuda\d+x?|cupy-rocm-[\d-]+")
PACKAGES = {
    "tifffile": ("io", "TIFF, OME-TIFF and ImageJ files"),
    "pillow": ("io", "PNG and JPEG files"),
    "zarr": ("io", "OME-Zarr images"),
    "pylibCZIrw": ("czi", "CZI files"),
    "nd2": ("nd2", "ND2 files"),
    "liffile": ("lif", "LIF files"),
    "bioio": ("bioio", "other formats, with a plugin"),
    "obstore": ("remote", "images on servers"),
    "tensorstore": ("fast", "Zarr, several times as fast"),
    "matplotlib": ("cli", "the pictures of preview, demo, train-demo and bench"),
    "tqdm": ("cli", "progress bars"),
    "torch": ("torch", "gpu_patch.torch, predict, train-demo"),
    "lightning": (None, "gpu_patch.lightning"),
    "careamics": (None, "gpu_patch.careamics, and bench beside it"),
}
"""Of each optional package: the extra that installs it, and what it is for."""
_KERNEL = 'extern "C" __global__ void nothing() {}'
_STATES = {
    "cudaErrorMemoryAllocation": "full: no room for another process",
    "cudaErrorDevicesUnavailable": "busy: another process has it for itself",
}


class Cupy(NamedTuple):
    """What is installed of CuPy.

    Attributes
    ----------
    packages : dict
        Versions of all that provide it: where there are two, each has overwritten the other.
    version, cuda, nvrtc : str or None
        Of CuPy, of the CUDA that it is built for, of the compiler that it finds.
    error, nvrtc_error : str
        Why it cannot be imported, and why it cannot compile; "" where it can.
    """

    packages: dict[str, str]
    version: str | None = None
    cuda: tuple[int, int] | None = None
    nvrtc: tuple[int, int] | None = None
    error: str = ""
    nvrtc_error: str = ""


class Cache(NamedTuple):
    """Where CuPy keeps compiled kernels, and whether it can."""

    path: str
    n_kernels: int
    n_bytes: int
    writable: bool
    needed: bool


class Machine(NamedTuple):
    """All of it.

    Attributes
    ----------
    wanted : str or None
        The device that was asked for, by argument or environment.
    device : str or None
        The one that images go to, None where it is refused.
    refusal : str
        Why, a message of arguments.
    compiled : dict
        How many kernels were compiled ahead, by folder: "cuda12-sm_90".
    memory : list of int or str or None
        Free bytes of each of the driver's devices, or why they are not known; None where nobody
        asked.
    """

    wanted: str | None
    device: str | None
    refusal: str
    driver: driver.Driver | None
    cupy: Cupy
    cache: Cache
    compiled: dict[str, int]
    memory: list[int | str] | None


def survey_machine(device: str | None, *, memory: bool) -> Machine:
    """Find out what this machine has.

    Parameters
    ----------
    device : str or None
        As in `gpu_patch.device.resolve`.
    memory : bool
        Ask what is free, which takes some hundred MB of each device for a moment.

    Raises
    ------
    ValueError
        Where there can be no device of this name.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # CuPy's, of two installations
        try:
            using, refusal = devices.resolve(device), ""
        except RuntimeError as error:
            using, refusal = None, error.args[0]  # which names arguments
        found = driver.find()
        cupy = find_cupy(_capability(found, using))
        free = _free_memory(found) if memory and cupy.version else None
    wanted = device or os.environ.get(devices.ENVIRONMENT_VARIABLE)
    return Machine(wanted, using, refusal, found, cupy, kernel_cache(), compiled_ahead(), free)


def versions() -> dict[str, str]:
    """Return those of what is always there."""
    return {
        "gpu_patch": gpu_patch.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
    }


def cpu() -> dict[str, Any]:
    """Return what computes batches on the CPU, with how many threads, and why not compiled code."""
    found = library.choice()
    level = found.library.level if found.library else None
    threads = gpu_patch.get_num_threads() if level else None
    return {"kernels": level, "threads": threads, "reason": found.reason or None}


def version_of(package: str) -> str | None:
    """Return the version of an installed package, without importing it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def find_cupy(capability: tuple[int, int] | None) -> Cupy:
    """Import CuPy and compile a kernel, which takes no device.

    Parameters
    ----------
    capability : tuple of int or None
        Of the device to compile for, None for any.
    """
    installed = ((str(found.metadata["Name"]), found) for found in metadata.distributions())
    packages = {name: found.version for name, found in installed if _CUPY.fullmatch(name)}
    try:
        cupy: Any = importlib.import_module("cupy")
        found = Cupy(packages, cupy.__version__, _pair(cupy.cuda.runtime.runtimeGetVersion()))
    except ModuleNotFoundError as error:
        return Cupy(packages, error="" if error.name == "cupy" else str(error))
    except Exception as error:  # whatever its libraries and folders make of it
        return Cupy(packages, error=_reason(error))
    try:
        nvrtc = cupy.cuda.nvrtc
        found = found._replace(nvrtc=tuple(nvrtc.getVersion()))
        _compile(nvrtc, capability)
    except Exception as error:
        return found._replace(nvrtc_error=_reason(error))
    return found


def kernel_cache() -> Cache:
    """Return where compiled kernels are kept."""
    path = Path(os.environ.get("CUPY_CACHE_DIR") or Path.home() / ".cupy" / "kernel_cache")
    sizes = [file.stat().st_size for file in path.glob("*.cubin")]
    there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    writable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    # CuPy makes the folder also where it is told to keep kernels in memory
    in_memory = os.environ.get("CUPY_CACHE_IN_MEMORY", "0") not in ("", "0")
    return Cache(str(path), len(sizes), sum(sizes), writable, not (in_memory and path.is_dir()))


def compiled_ahead() -> dict[str, int]:
    """Count the kernels that were compiled ahead, by CUDA and architecture: "cuda12-sm_90"."""
    counts = Counter(path.parent.name for path in loader.COMPILED.glob("*/*.cubin"))
    return dict(sorted(counts.items(), key=lambda item: (len(item[0]), item[0])))  # sm_90, sm_100


def _capability(found: driver.Driver | None, using: str | None) -> tuple[int, int] | None:
    number = int(using.partition(":")[2]) if using and using != "cpu" else 0
    if found is None or number >= len(found.devices):
        return None
    return found.devices[number].compute_capability


def _compile(nvrtc: Any, capability: tuple[int, int] | None) -> None:
    known = nvrtc.getSupportedArchs()
    wanted = max(known) if capability is None else 10 * capability[0] + capability[1]
    if wanted < min(known):
        raise RuntimeError(f"it knows sm_{min(known)} and newer, the device is sm_{wanted}")
    program = nvrtc.createProgram(_KERNEL, "nothing.cu", (), ())
    try:
        # code for the newest that it knows is translated by the driver of a newer device
        newest = max(arch for arch in known if arch <= wanted)
        nvrtc.compileProgram(program, (f"--gpu-architecture=compute_{newest}",))
    finally:
        nvrtc.destroyProgram(program)


def _free_memory(found: driver.Driver | None) -> list[int | str]:
    cuda: Any = importlib.import_module("cupy").cuda
    free: list[int | str] = []
    for index in range(len(found.devices) if found else 0):
        try:
            with cuda.Device(index):
                free.append(int(cuda.runtime.memGetInfo()[0]))
        except Exception as error:
            known = (state for name, state in _STATES.items() if name in str(error))
            free.append(next(known, _reason(error)))
    return free


def _reason(error: Exception) -> str:
    """Return the line of a message that says why."""
    text = str(error)
    original = re.search(r"Original error:\s*(.+)", text)  # in CuPy's own
    lines = [original[1]] if original else text.strip().splitlines()
    return shorten(lines[0] if lines else type(error).__name__, 200, placeholder=" …")


def _pair(number: int) -> tuple[int, int]:
    return number // 1000, number % 1000 // 10
