"""Where the operations run: tests take each backend in turn through the fixture `backend`."""

from __future__ import annotations

import importlib.util
from contextlib import nullcontext
from unittest import mock

import numpy as np
from emulation.runtime import EmulatedRuntime, available

from gpu_patch import device, ops
from gpu_patch._cuda import specialised


class Backend:
    """The operations in NumPy. Others move arrays; the operations choose by where they are."""

    name = "numpy"

    def missing(self) -> str:
        """Say what this machine lacks, "" for nothing."""
        return ""

    def images(self, arrays):
        """The images, where this backend computes."""
        return ops.Images([np.ascontiguousarray(array) for array in arrays])

    def to_host(self, array):
        """A result as a NumPy array."""
        return array

    def running(self):
        """What must hold while an operation runs."""
        return nullcontext()

    def gather(self, images, rows, patch_size, **options):
        with self.running():
            found = ops.gather(self.images(images), rows, patch_size, **options)
        return self.to_host(found)

    def lateral_context(self, images, rows, weights, patch_size, n_scales, **options):
        with self.running():
            found = ops.lateral_context(
                self.images(images), rows, weights, patch_size, n_scales, **options
            )
        return tuple(None if array is None else self.to_host(array) for array in found)


class Emulated(Backend):
    """The CUDA kernels and their launch code, compiled for the CPU."""

    name = "emulated"

    def missing(self):
        return "" if available() else "the emulated backend needs a C++ compiler"

    def images(self, arrays):
        images = super().images(arrays)
        images.__dict__["runtime"] = EmulatedRuntime()  # what it would find on a CUDA array
        return images

    def running(self):
        # random shapes would each be compiled for; tests/cuda has chosen ones for that path
        return mock.patch.object(specialised, "choose", return_value=None)


class Cuda(Backend):
    """The real thing."""

    name = "cuda"

    def missing(self):
        if importlib.util.find_spec("cupy") is None:
            return "the cuda backend needs CuPy"
        problem = device.cuda_problem()
        return f"the cuda backend needs a GPU: {problem}" if problem else ""

    def images(self, arrays):
        return ops.Images([device.to_cuda(np.ascontiguousarray(a), "cuda:0") for a in arrays])

    def to_host(self, array):
        return array.get()


BACKENDS = [Backend(), Emulated(), Cuda()]
