"""Compiling what a batch needs before it is made."""

from __future__ import annotations

from collections.abc import Callable


def compile_for(device: str, make: Callable[[], object]) -> None:
    """Compile all kernels that a function launches, in parallel.

    Parameters
    ----------
    device : str
        "cuda:N".
    make : callable
        Runs, but launches none of our kernels; what it returns is dropped.
    """
    from gpu_patch._cuda.runtime import cupy_runtime

    cupy_runtime(int(device.partition(":")[2])).compile_for(make)
