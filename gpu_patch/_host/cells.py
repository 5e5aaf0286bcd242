"""Cells of images, measured for background filters by the compiled kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_patch._host.arguments import address, n_threads_for
from gpu_patch._host.library import CellsJob, Library
from gpu_patch.table import volume


def serves(cells: Any) -> bool:
    """Whether the kernels read these cells: float32 of the host, each C-contiguous."""
    return (
        type(cells) is np.ndarray
        and cells.dtype == np.float32
        and cells.size > 0
        and cells.strides[0] >= 0
        and cells.strides[0] % cells.itemsize == 0
        and cells[0].flags.c_contiguous
    )


def count_near(
    library: Library, cells: NDArray[np.float32], threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return how many pixels of each cell have one above a threshold in the box around them.

    Parameters
    ----------
    library : Library
        The kernels.
    cells : array of float32, shape (N, (Z), Y, X)
        See `serves`.
    threshold : float
        Rounded to float32 first. Zeros are outside a cell.

    Returns
    -------
    near : array of int64, shape (N,)
        Pixels.
    reaches : array of bool, shape (N,)
        Whether some pixel is the threshold or more.
    """
    near, reaches = np.empty(len(cells), np.int64), np.empty(len(cells), bool)
    job = _job(cells, threshold)
    library.call("count_near", job, cells.ctypes.data, address(near), address(reaches))
    return near, reaches


def mean_and_deviation(
    library: Library, cells: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean of each cell, and its standard deviation: of the population."""
    mean, deviation = np.empty((2, len(cells)))
    job = _job(cells)
    library.call("measure_cells", job, cells.ctypes.data, address(mean), address(deviation))
    return mean, deviation


def entropies(library: Library, cells: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the Shannon entropy of each cell's values, in bits. All NaN are one value."""
    bits = np.empty(len(cells))
    library.call("cell_entropies", _job(cells), cells.ctypes.data, address(bits))
    return bits


def count_marked(library: Library, cells: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return how many pixels of each cell are not 0."""
    marked = np.empty(len(cells), np.int64)
    library.call("count_marked", _job(cells), cells.ctypes.data, address(marked))
    return marked


def _job(cells: NDArray[np.float32], threshold: float = 0) -> CellsJob:
    stride = cells.strides[0] // cells.itemsize
    n_threads = n_threads_for(4 * cells.size)
    return CellsJob(
        len(cells), stride, volume(cells.shape[1:]), threshold, threshold < 0, n_threads
    )
