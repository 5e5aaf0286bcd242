"""What the launch code needs of an array library, and the same on CuPy.

The launch code itself knows no CuPy: the emulated tests run it on NumPy arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpu_patch._cuda.compiling import in_parallel, rehearsal, rehearsed
from gpu_patch._cuda.loader import OPTIONS, Constants, binary_path, source_text
from gpu_patch.device import import_cupy
from gpu_patch.device.leases import new_output
from gpu_patch.device.pinned import PinnedPool

Kernel: TypeAlias = Callable[..., None]
"""Called with (grid, block, arguments, shared_mem=bytes), like `cupy.RawKernel`."""


class Runtime(Protocol):
    """Arrays and kernels of one device."""

    def active(self) -> AbstractContextManager[Any]:
        """Make the device the current one for a while.

        Raises
        ------
        RuntimeError
            While its current stream is being captured into a graph.
        """

    def output(self, shape: Sequence[int], dtype: DTypeLike) -> Any:
        """Return an array with undefined values, to be handed out."""

    def upload(self, table: NDArray[np.uint8]) -> Any:
        """Return a copy of `table` on the device, made in the order of the current stream."""

    def kernel(self, name: str, entry: str, constants: Constants) -> Kernel:
        """Return the kernel `entry` of the file ``name.cu``, with these compile-time constants."""

    def pointer(self, array: Any) -> int:
        """Return the address of an array."""

    def stream(self) -> int:
        """Return what tells the current stream from others: what it uploads is in its order."""


class CupyRuntime:
    """A CUDA device through CuPy. Everything is in the order of the current stream.

    Get it with `cupy_runtime`, so that kernels are compiled once.

    Parameters
    ----------
    device : int
        Number of the device.
    """

    def __init__(self, device: int) -> None:
        self._cupy = import_cupy()
        self.device = device
        self._kernels: dict[tuple[Any, ...], Kernel] = {}
        self._pinned = PinnedPool(self._cupy)

    def active(self) -> AbstractContextManager[Any]:
        if self._cupy.cuda.get_current_stream(self.device).is_capturing():
            raise RuntimeError(
                "the current CUDA stream is being captured into a graph, which would copy the "
                "table of this batch from memory that later batches use again: make batches "
                "before the capture, or outside of it"
            )
        device: AbstractContextManager[Any] = self._cupy.cuda.Device(self.device)
        return device

    def output(self, shape: Sequence[int], dtype: DTypeLike) -> Any:
        return new_output(self._cupy, shape, dtype)

    def upload(self, table: NDArray[np.uint8]) -> Any:
        array = self._cupy.empty(table.nbytes, np.uint8)
        buffer = self._pinned.take(table.nbytes)
        buffer.host[: table.nbytes] = table
        buffer.copy_to(array)
        self._pinned.give_back(buffer)
        return array

    def kernel(self, name: str, entry: str, constants: Constants) -> Kernel:
        key = (name, entry, *constants.items())
        kernel = self._kernels.get(key)
        if kernel is None:
            kernel = self._kernels[key] = self._new_kernel(source_text(name, constants), entry)
        return kernel

    def pointer(self, array: Any) -> int:
        return int(array.data.ptr)

    def stream(self) -> int:
        return int(self._cupy.cuda.get_current_stream().ptr)

    def compile_for(self, make: Callable[[], object]) -> None:
        """Compile all kernels that `make` launches, in parallel; it runs, but launches nothing.

        Parameters
        ----------
        make : callable
            What it returns has undefined values, and is dropped.
        """
        with rehearsal() as kernels:
            make()
        in_parallel(self._compile, kernels)

    def _compile(self, kernel: Any) -> None:
        with self._cupy.cuda.Device(self.device):  # each thread has one of its own
            kernel.compile()

    def _new_kernel(self, text: str, entry: str) -> Kernel:
        """Return the kernel that was compiled ahead, else one that CuPy compiles and keeps."""
        cuda = self._cupy.cuda.runtime
        properties = cuda.getDeviceProperties(self.device)
        architecture = f"{properties['major']}{properties['minor']}"
        path = binary_path(text, cuda.runtimeGetVersion(), architecture)
        kernel: Kernel
        if path.exists():
            kernel = self._cupy.RawModule(path=str(path)).get_function(entry)
        else:
            kernel = self._cupy.RawKernel(text, entry, options=OPTIONS)
            postponed = rehearsed()
            if postponed is None:
                in_parallel(self._compile, [kernel])
            else:
                postponed.append(kernel)
        return kernel


@cache
def cupy_runtime(device: int) -> CupyRuntime:
    """Return the runtime of a CUDA device."""
    return CupyRuntime(device)


def launch(
    kernel: Kernel,
    grid: int | tuple[int, int, int],
    block: tuple[int, ...],
    arguments: Sequence[int | NDArray[np.void]],
    shared_bytes: int = 0,
) -> None:
    """Start a grid of blocks, of one dimension or three: none where it is empty, or in a rehearsal.

    The arguments are addresses, which no device has beyond int64, as CuPy passes a Python int, and
    structures that are passed by value, as arrays of one.
    """
    blocks = grid if isinstance(grid, tuple) else (grid,)
    if 0 in blocks or rehearsed() is not None:
        return
    kernel(blocks, block, tuple(arguments), shared_mem=shared_bytes)


def pointer_or_null(runtime: Runtime, array: Any | None) -> int:
    """Return the address of an array, 0 for None."""
    return 0 if array is None else runtime.pointer(array)
