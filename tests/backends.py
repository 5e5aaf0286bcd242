"""Where things run: tests take each backend in turn through the fixtures `backend` and `device`."""

from __future__ import annotations

import importlib.util
from contextlib import contextmanager, nullcontext
from unittest import mock

import numpy as np
from emulation import fake_cupy
from emulation.runtime import available
from ptx import runtime as ptx

from gpu_patch import device as devices
from gpu_patch import ops
from gpu_patch._cuda import specialised
from gpu_patch._host import build, library


class Backend:
    """NumPy. Those on other devices keep images there; operations choose by where they are."""

    name, device = "numpy", "cpu"
    folders: tuple[str, ...] = ()
    """Of tests that run on it; all, where none are named."""
    library = None  # of compiled kernels

    def missing(self) -> str:
        """Say what this machine lacks, "" for nothing."""
        return ""

    def running(self):
        """What must hold while anything of this backend is in use."""
        return library.computing(self.library)

    def images(self, arrays):
        """The images, where this backend computes."""
        return ops.ImageSet([self.array(array) for array in arrays])

    def array(self, array):
        """An array, where this backend computes."""
        return np.ascontiguousarray(array)

    def to_host(self, array):
        """A result as a NumPy array."""
        return array

    def gather(self, images, sources, patch_size, *, rows=None, **options):
        with self.running():
            made = ops.Gather(self.images(images), sources, patch_size, **options)
            return self.to_host(made(rows))

    def lateral_context(
        self, images, sources, weights, patch_size, n_scales, *, rows=None, **options
    ):
        with self.running():
            made = ops.LateralContext(
                self.images(images), sources, weights, patch_size, n_scales, **options
            )
            found = made(rows)
            return tuple(None if array is None else self.to_host(array) for array in found)


class Host(Backend):
    """The kernels that are compiled for the CPU, of one instruction set."""

    def __init__(self, level, folders=()):
        self.name, self.folders = level, folders

    def missing(self):
        try:
            if self.name not in library.supported():
                return f"this processor has no {self.name}"
            self.library = library.Library(self.name, build.library_path(self.name))
        except OSError as error:
            return f"not compiled, python -m gpu_patch._host does it: {error}"
        return ""


class Cuda(Backend):
    """The real thing."""

    name, device = "cuda", "cuda"

    def running(self):
        return nullcontext()

    def missing(self):
        if importlib.util.find_spec("cupy") is None:
            return "the cuda backend needs CuPy"
        problem = devices.cuda_problem()
        return f"the cuda backend needs a GPU: {problem}" if problem else ""

    def array(self, array):
        return devices.to_cuda(np.ascontiguousarray(array), "cuda:0")

    def to_host(self, array):
        return array.get()


class Emulated(Cuda):
    """The same code, but CuPy is a stand-in that runs the kernels compiled for the CPU."""

    name = "emulated"

    def missing(self):
        return "" if available() else "the emulated backend needs a C++ compiler"

    @contextmanager
    def running(self):
        # each shape would be compiled for; chosen ones are, in tests/cuda
        general = mock.patch.object(specialised, "choose", return_value=None)
        with fake_cupy.installed(), general:
            yield


class Ptx(Emulated):
    """What NVRTC makes of the kernels, run by an interpreter of PTX."""

    name, folders = "ptx", ("ops",)

    def missing(self):
        return ptx.missing()

    @contextmanager
    def running(self):
        with super().running(), ptx.in_fake_cupy():
            yield


LEVELS = list(build.LEVELS.get(build.machine(), {}))
HOSTS = [*map(Host, LEVELS[:1]), *(Host(level, ("ops",)) for level in LEVELS[1:])]
BACKENDS = [Backend(), *HOSTS, Emulated(), Ptx(), Cuda()]
