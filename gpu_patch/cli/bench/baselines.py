"""What one would write without gpu_patch: the same batches of the same resident images.

Three ways, which differ in how windows are downscaled. All gather the largest windows of a whole
batch with one index, mix their channels, and take the smaller windows from the middles. They do
less than gpu_patch: one stack of images, all channels from one place, windows that leave the
image by less than its size and are reflected there, and plans that are given.
"""

from __future__ import annotations

import importlib
import operator
from collections.abc import Callable, Sequence
from functools import cache, partial, reduce
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpu_patch.constructors.plan import Plan
from gpu_patch.geometry import fir_blocks, window_start

Alternative = Callable[[Plan], tuple[Any, Any]]
"""Makes input (B, L, (Z), Y, X) and target (B, C, (Z), Y, X)."""


class Arrays(NamedTuple):
    """What is called differently in NumPy, CuPy and torch."""

    upload: Callable[[NDArray[Any]], Any]
    as_float: Callable[[Any], Any]
    stack: Callable[[Sequence[Any], int], Any]


def of_numpy(xp: Any) -> Arrays:
    """Return those of NumPy or CuPy."""
    return Arrays(xp.asarray, lambda array: array.astype(np.float32), xp.stack)


def of_torch(torch: Any, device: Any) -> Arrays:
    """Return those of torch."""

    def upload(array: NDArray[Any]) -> Any:
        host = torch.from_numpy(array)
        # pinned, as a DataLoader does, so that nobody waits
        return host.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else host

    return Arrays(upload, lambda tensor: tensor.float(), torch.stack)


def matmul(xp: Any, image: Any, n_scales: int) -> Alternative:
    """Downscale by dense matrices: the filter of gpu_patch, as a product per axis."""

    @cache
    def matrix(size: int, scale: int) -> Any:
        (block,) = fir_blocks(size, scale, size)
        return xp.asarray(block.weights)

    def downscale(windows: Any, patch_size: Sequence[int], scale: int) -> Any:
        *depth, height, width = patch_size
        small = matrix(height, scale) @ windows @ matrix(width, scale).T
        if not depth:
            return small
        planes = small.reshape(len(small), small.shape[1], -1)
        return (matrix(depth[0], scale) @ planes).reshape(-1, *patch_size)

    return partial(_context, of_numpy(xp), image, n_scales, downscale)


def per_patch(xp: Any, ndimage: Any, image: Any, n_scales: int) -> Alternative:
    """Filter and zoom patch by patch and scale by scale.

    The steps of `skimage.transform.resize`, which gpu_patch follows: a Gaussian of
    σ = (f − 1) / 2, then linear interpolation. The results are the same up to rounding.
    """

    def downscale(windows: Any, patch_size: Sequence[int], scale: int) -> Any:
        factor = 1 << scale
        sigma = (factor - 1) / 2
        smooth = (ndimage.gaussian_filter(window, sigma, mode="mirror") for window in windows)
        small = [
            ndimage.zoom(window, 1 / factor, order=1, mode="mirror", grid_mode=True)
            for window in smooth
        ]
        return xp.stack(small)

    return partial(_context, of_numpy(xp), image, n_scales, downscale)


def interpolate(torch: Any, image: Any, n_scales: int) -> Alternative:
    """Downscale a whole batch by `torch.nn.functional.interpolate(antialias=True)`.

    Another filter: a triangle of 2 f pixels instead of a Gaussian of σ = (f − 1) / 2 and some
    4 f pixels, so finer detail passes. Smooth images give nearly the same.
    """
    shrink = partial(torch.nn.functional.interpolate, mode="bilinear", antialias=True)

    def downscale(windows: Any, patch_size: Sequence[int], scale: int) -> Any:
        *depth, height, width = patch_size
        if not depth:
            return shrink(windows[:, None], size=(height, width))[:, 0]
        # for two axes alone: planes are channels first, then all pixels of a plane one axis
        planes = shrink(windows, size=(height, width))
        flat = planes.reshape(len(planes), 1, planes.shape[1], -1)
        return shrink(flat, size=(depth[0], height * width)).reshape(-1, *patch_size)

    return partial(_context, of_torch(torch, image.device), image, n_scales, downscale)


def _context(
    arrays: Arrays, image: Any, n_scales: int, downscale: Callable[..., Any], plan: Plan
) -> tuple[Any, Any]:
    """Make a batch; `downscale` takes windows (B, (Z), Y, X), the patch's size and the scale."""
    windows = _gather(arrays.upload, image, plan, n_scales - 1)
    shape = (-1, *[1] * len(plan.patch_size))
    assert plan.weights is not None
    weights = arrays.upload(plan.weights)
    products = (windows[:, c] * weights[:, c].reshape(shape) for c in range(weights.shape[1]))
    mixed = reduce(operator.add, products)
    scales = [_middle(mixed, plan.patch_size)]
    for scale in range(1, n_scales):
        window = _middle(mixed, [size << scale for size in plan.patch_size])
        scales.append(downscale(window, plan.patch_size, scale))
    target = arrays.as_float(_middle(windows, plan.patch_size))
    return arrays.stack(scales, 1), target


def _gather(upload: Callable[..., Any], image: Any, plan: Plan, scale: int) -> Any:
    """Return the windows of all channels, (B, C, (Z), Y, X)."""
    sample_idx, coords = plan.sources.sample_idx, plan.sources.coords[:, 0]
    start = upload(window_start(coords, np.array(plan.patch_size), scale))
    n_dims = len(plan.patch_size)
    index = [
        upload(sample_idx).reshape(-1, 1, *[1] * n_dims),
        upload(plan.sources.channels).reshape(1, -1, *[1] * n_dims),
    ]
    for axis, size in enumerate(plan.patch_size):
        last = image.shape[2 + axis] - 1
        pixel = start[:, axis, None] + upload(np.arange(size << scale))
        shape = [-1 if d == axis else 1 for d in range(n_dims)]
        # reflected at both ends
        index.append((last - abs(last - abs(pixel))).reshape(len(coords), 1, *shape))
    return image[tuple(index)]


def _middle(windows: Any, size: Sequence[int]) -> Any:
    """Return the middle of the last axes."""
    whole = windows.shape[-len(size) :]
    start = [big // 2 - small // 2 for big, small in zip(whole, size, strict=True)]
    inside = (slice(at, at + small) for at, small in zip(start, size, strict=True))
    return windows[(..., *inside)]


def _cupy_matmul(image: Any, n_scales: int) -> Alternative:
    return matmul(importlib.import_module("cupy"), image, n_scales)


def _cupyx_per_patch(image: Any, n_scales: int) -> Alternative:
    ndimage = importlib.import_module("cupyx.scipy.ndimage")
    return per_patch(importlib.import_module("cupy"), ndimage, image, n_scales)


def _torch_interpolate(image: Any, n_scales: int) -> Alternative:
    torch = importlib.import_module("torch")
    return interpolate(torch, torch.from_dlpack(image), n_scales)


ALTERNATIVES: dict[str, Callable[[Any, int], Alternative]] = {
    "CuPy, gather and matmul": _cupy_matmul,
    "cupyx.scipy.ndimage per patch": _cupyx_per_patch,
    "torch, index and interpolate": _torch_interpolate,
}
"""By name: functions of the resident images, SC(Z)YX, and of the number of scales."""
