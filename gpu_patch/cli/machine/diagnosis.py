"""The one thing to fix before batches are made where they should be."""

from __future__ import annotations

import os
import re

from gpu_patch import device as devices
from gpu_patch.cli.machine.driver import NO_DEVICE
from gpu_patch.cli.machine.survey import Machine

OLDEST_DRIVER = {12: "525.60.13", 13: "580.65.06"}
"""Of each CUDA, on Linux (NVIDIA's release notes: minor version compatibility)."""
_OR_CPU = "or set GPU_PATCH_DEVICE=cpu"
_WITHOUT_13 = (
    "pip uninstall -y nvidia-cuda-nvrtc, which comes with PyTorch for CUDA 13; neither works with "
    "this driver and GPU"
)


def problem(machine: Machine) -> str:
    """Return what is to be fixed first, "" where all is well.

    It is well where images go to the device that was asked for; where none was, to a GPU if there
    is one or CuPy is installed. A device that is busy or full is well: the process that fills it
    may be the one that somebody looks after.
    """
    cupy = machine.cupy
    has_cupy = bool(cupy.packages or cupy.version or cupy.error)
    has_device = machine.driver is not None and bool(machine.driver.devices)
    if machine.wanted == "cpu" or not (machine.wanted or has_cupy or has_device):
        return ""
    found = _packages(machine) or (_driver(machine) if has_cupy else "")
    if found or not has_cupy:
        without = "CuPy is not installed" if has_device else "there is no NVIDIA driver, nor CuPy"
        before = "" if has_device else "install one, or start the container with --gpus all, then "
        return found or f"{without}: {before}pip install '{_extra(machine)}', {_OR_CPU}"
    return _cache(machine) or _cupy(machine) or machine.refusal or _not_used(machine)


def _packages(machine: Machine) -> str:
    packages = machine.cupy.packages
    if len(packages) < 2:
        return ""
    names = " and ".join(sorted(packages))
    return f"{names} are installed, which overwrite each other: {_again(machine)}"


def _driver(machine: Machine) -> str:
    driver = machine.driver
    if driver is None:
        return (
            "CuPy is installed, but there is no NVIDIA driver: install one, start the container "
            f"with --gpus all, {_OR_CPU}"
        )
    name = f"the NVIDIA driver {driver.version or ''}".rstrip()
    built = _cuda_of_cupy(machine)
    # what a driver that is too old says of itself is less clear
    if built is not None and driver.cuda[0] < built:
        update = "update it" + (
            f" to {OLDEST_DRIVER[built]} or later" if built in OLDEST_DRIVER else ""
        )
        older = f", or install '{_extra(machine)}'" if driver.cuda[0] in OLDEST_DRIVER else ""
        return (
            f"{name} supports CUDA up to {_dotted(driver.cuda)}, CuPy is built for CUDA {built}: "
            f"{update}{older}"
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if driver.status not in (0, NO_DEVICE):
        return (
            f"{name} does not start ({driver.error}): see what nvidia-smi says; after an update "
            "restart the machine"
        )
    if driver.devices:
        return ""
    if visible is not None:
        return f"CUDA_VISIBLE_DEVICES is {visible!r}, which shows no device: unset it, {_OR_CPU}"
    return f"{name} finds no device: start the container with --gpus all, {_OR_CPU}"


def _cache(machine: Machine) -> str:
    cache = machine.cache
    if cache.writable or not cache.needed:
        return ""
    return (
        f"compiled kernels cannot be kept in {cache.path}: set CUPY_CACHE_DIR to a folder that "
        "can be written"
    )


def _cupy(machine: Machine) -> str:
    cupy = machine.cupy
    again = _again(machine)
    if cupy.error:
        return f"CuPy cannot be imported ({cupy.error}): {again}"
    if cupy.nvrtc is None:
        return f"CuPy finds no compiler, NVRTC ({cupy.nvrtc_error}): {again}"
    if cupy.cuda is not None and cupy.nvrtc[0] != cupy.cuda[0]:
        # of two in an environment it takes the newer one, for CUDA 13 what PyTorch 2.11 brings
        surplus = cupy.nvrtc[0] == 13 and _extra(machine) != "gpu_patch[cuda13]"
        fix = _WITHOUT_13 if surplus else again
        return (
            f"CuPy is built for CUDA {cupy.cuda[0]}, but finds NVRTC {_dotted(cupy.nvrtc)}: {fix}"
        )
    if cupy.nvrtc_error:
        older = "" if cupy.nvrtc[0] < 13 else ": install 'gpu_patch[cuda12]' instead"
        return f"NVRTC {_dotted(cupy.nvrtc)} cannot compile ({cupy.nvrtc_error}){older}"
    return ""


def _not_used(machine: Machine) -> str:
    """Say why images go to the CPU although there is a device and nobody asked for the CPU."""
    if machine.wanted or machine.device != "cpu":
        return ""
    return f"{devices.cuda_problem()}: see what nvidia-smi says, {_OR_CPU}"


def _cuda_of_cupy(machine: Machine) -> int | None:
    """Return the CUDA that CuPy is for, by its package's name where it cannot be imported."""
    if machine.cupy.cuda:
        return machine.cupy.cuda[0]
    found = re.search(r"cuda(\d{2})x", " ".join(machine.cupy.packages))
    return int(found[1]) if found else None


def _again(machine: Machine) -> str:
    # not --force-reinstall, which would exchange what others need, such as their NumPy
    names = " ".join(sorted(machine.cupy.packages)) or "cupy"
    return f"pip uninstall -y {names}, then pip install '{_extra(machine)}'"


def _extra(machine: Machine) -> str:
    newest, devices = (
        (machine.driver.cuda[0], machine.driver.devices) if machine.driver else (0, ())
    )
    # CUDA 13 leaves out what is older than Turing
    fits_13 = newest >= 13 and all(device.compute_capability >= (7, 5) for device in devices)
    return f"gpu_patch[cuda{13 if fits_13 else 12}]"


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
