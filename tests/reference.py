"""Slow and obvious: the definitions, pixel by pixel, in Python loops and float64.

Written from the specification. Nothing here may import a formula of the package, since that is
what it is compared with.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np

# ---------------------------------------------------------------------------------------------
# Borders


def mirrored(pixel, n):
    """Bounce off both ends until inside 0 … n − 1; the edge pixel is not repeated."""
    if n == 1:
        return 0
    while not 0 <= pixel < n:
        pixel = -pixel if pixel < 0 else 2 * (n - 1) - pixel
    return pixel


def wrapped(pixel, n):
    """Go round until inside 0 … n − 1."""
    while pixel < 0:
        pixel += n
    while pixel >= n:
        pixel -= n
    return pixel


def clipped(pixel, n):
    return min(max(pixel, 0), n)


def image_pixel(virtual, coord, patch, n_scales, n, mode):
    """Pixel of an axis of `n` that a virtual coordinate reads, None where it reads zero.

    The window of patch · 2^n_scales around the patch is cut out of the image first, and the cut is
    what "reflect" mirrors and "wrap" wraps.
    """
    if mode == "zero":
        return virtual if 0 <= virtual < n else None
    if mode == "periodic":
        return wrapped(virtual, n)
    size = patch * 2**n_scales
    start = coord + patch // 2 - size // 2
    low, high = clipped(start, n), clipped(start + size, n)
    fold = {"reflect": mirrored, "wrap": wrapped}[mode]
    return low + fold(virtual - low, high - low)


def window_pixels(coord, patch, scale, n_scales, n, mode):
    """Image pixels of the window of one scale, along one axis."""
    size = patch * 2**scale
    start = coord + patch // 2 - size // 2
    return [image_pixel(start + i, coord, patch, n_scales, n, mode) for i in range(size)]


def read(volume, pixels):
    """Read a window, given its image pixels per axis; None reads zero."""
    for axis, wanted in enumerate(pixels):
        nothing = np.zeros_like(volume.take(0, axis))
        volume = np.stack(
            [nothing if pixel is None else volume.take(pixel, axis) for pixel in wanted], axis
        )
    return volume


def window(volume, coords, patch_size, scale, n_scales, mode):
    """The window of one scale around a patch, in the image's data type."""
    return read(
        volume,
        [
            window_pixels(x, p, scale, n_scales, n, mode)
            for x, p, n in zip(coords, patch_size, volume.shape, strict=True)
        ],
    )


# ---------------------------------------------------------------------------------------------
# Downscaling


def taps(scale):
    """A Gaussian of σ = (f − 1) / 2 cut at 4σ, averaged over the two middle pixels."""
    if scale == 0:
        return [1.0]
    sigma = (2**scale - 1) / 2
    radius = int(4 * sigma + 0.5)
    gauss = [math.exp(-(x**2) / (2 * sigma**2)) for x in range(-radius, radius + 1)]
    total = sum(gauss)
    left, right = [g / total for g in gauss] + [0.0], [0.0] + [g / total for g in gauss]
    return [(a + b) / 2 for a, b in zip(left, right, strict=True)]


def downscale_axis(pixels, axis, size, scale):
    """Sum the taps for every output; the mirror is at the edge of the window."""
    factor, weights = 2**scale, taps(scale)
    radius = len(weights) // 2 - 1
    lines = np.moveaxis(pixels.astype(np.float64), axis, 0)
    assert len(lines) == size * factor
    result = []
    for i in range(size):
        if scale == 0:
            result.append(lines[i])
            continue
        total = np.zeros_like(lines[0])
        for k, weight in enumerate(weights):
            total += weight * lines[mirrored(factor * i + factor // 2 - 1 - radius + k, len(lines))]
        result.append(total)
    return np.moveaxis(np.stack(result), 0, axis)


def downscale(pixels, size, scale):
    for axis, n in enumerate(size):
        pixels = downscale_axis(pixels, axis, n, scale)
    return pixels


def pyramid(volume, coords, patch_size, n_scales, mode):
    """Lateral context of one channel (Z)YX: L(Z)YX in float64."""
    return np.stack(
        [
            downscale(window(volume, coords, patch_size, s, n_scales, mode), patch_size, s)
            for s in range(n_scales)
        ]
    )


# ---------------------------------------------------------------------------------------------
# Batches; `sources` is a `gpu_patch.sources.ChannelSources`


def places(sources, b, c):
    """Image, sample, first pixel and channel that channel `c` of sample `b` reads."""
    k = 0 if sources.image_idx.shape[1] == 1 else c
    return (
        int(sources.image_idx[b, k]),
        int(sources.sample_idx[b, k]),
        sources.coords[b, k].tolist(),
        int(sources.channels[c]),
    )


def gather(images, sources, patch_size, mode="zero", n_scales=0):
    """Patches (B, C, (Z), Y, X), in float32."""
    n_samples, n_channels = len(sources.image_idx), len(sources.channels)
    result = np.empty((n_samples, n_channels, *patch_size), np.float32)
    for b, c in product(range(n_samples), range(n_channels)):
        image, sample, coords, channel = places(sources, b, c)
        volume = images[image][sample, channel]
        result[b, c] = window(volume, coords, patch_size, 0, n_scales, mode)
    return result


def lateral_context(images, sources, weights, patch_size, n_scales, mode):
    """Input (B, L, (Z), Y, X) in float64 and target (B, C, (Z), Y, X) in float32."""
    n_samples, n_channels = len(sources.image_idx), len(sources.channels)
    mixed = np.zeros((n_samples, n_scales, *patch_size))
    for b, c in product(range(n_samples), range(n_channels)):
        image, sample, coords, channel = places(sources, b, c)
        volume = images[image][sample, channel]
        mixed[b] += float(weights[b, c]) * pyramid(volume, coords, patch_size, n_scales, mode)
    return mixed, gather(images, sources, patch_size, mode, n_scales)


# ---------------------------------------------------------------------------------------------
# Epilogues; `epilogue` is a `gpu_patch.epilogue.Epilogue`


def turned(patch, orientation):
    """Pixel by pixel: along Y backwards for 4 and more, then quarter turns from Y to X."""
    quarters, flipped = orientation % 4, orientation >= 4
    if flipped:
        patch = np.stack([patch[..., -1 - y, :] for y in range(patch.shape[-2])], axis=-2)
    for _ in range(quarters):
        height, width = patch.shape[-2:]
        result = np.empty((*patch.shape[:-2], width, height), patch.dtype)
        for y in range(height):
            for x in range(width):
                result[..., width - 1 - x, y] = patch[..., y, x]
        patch = result
    return patch


def finished(values, scale, offset, orientation, shift=None):
    """Values (B, C, ...), or (B, L, ...) with one scale and offset, in their own precision."""
    result = []
    if shift is not None:
        values = values - shift.astype(values.dtype).reshape(*shift.shape, *[1] * (values.ndim - 2))
    for sample, factors, summands, turn in zip(values, scale, offset, orientation, strict=True):
        shape = (-1, *(1,) * (sample.ndim - 1))
        affine = sample * factors.astype(values.dtype).reshape(shape)
        result.append(turned(affine + summands.astype(values.dtype).reshape(shape), turn))
    return np.stack(result)


def finished_input(values, epilogue, weights=None):
    """With `weights` (B, C), values are mixtures: what channels are shifted by is weighted."""
    shift = epilogue.input_shift
    if shift is not None and weights is not None:
        shift = (weights.astype(np.float64) * shift).sum(axis=1, keepdims=True)
    parts = epilogue.input_scale, epilogue.input_offset, epilogue.orientation
    return finished(values, *parts, shift)


def finished_target(values, epilogue):
    parts = epilogue.target_scale, epilogue.target_offset, epilogue.orientation
    return finished(values, *parts, epilogue.target_shift)


# ---------------------------------------------------------------------------------------------
# Grids


def sequential_starts(n, patch, overlap):
    """Every patch − overlap while patches fit, and one flush to the end."""
    starts = [0]
    while starts[-1] + (patch - overlap) + patch <= n:
        starts.append(starts[-1] + patch - overlap)
    if starts[-1] + patch < n:
        starts.append(n - patch)
    return starts


def tiles(n, patch, overlap):
    """(start, crop, size kept, where it goes) of each tile of an axis."""
    result = []
    position = 0
    while position == 0 or position < n - overlap:
        if position == 0:
            start, kept = 0, (0, n if n <= patch else patch - overlap // 2)
        elif position + patch < n:
            start, kept = position, (position + overlap // 2, None)
            kept = (kept[0], kept[0] + patch - overlap)
        else:
            start, kept = max(0, n - patch), (result[-1][3] + result[-1][2], n)
        result.append((start, kept[0] - start, kept[1] - kept[0], kept[0]))
        position += patch - overlap
    return result


# ---------------------------------------------------------------------------------------------
# Stitching


def tiles_at(pixel, n, patch, overlap, blend):
    """Numbers of the tiles of an axis that count at a pixel."""
    axis = tiles(n, patch, overlap)
    if blend != "crop":
        return [t for t, (start, *_) in enumerate(axis) if start <= pixel < start + patch]
    kept = [t for t, (*_, size, stitch) in enumerate(axis) if stitch <= pixel < stitch + size]
    return kept[-1:]  # the later one wins


def tile_weight(inside, patch, blend):
    """Weight of a pixel of a tile before the weights of all tiles there are made to sum to 1."""
    if blend == "crop":
        return 1.0
    centre = (patch - 1) / 2
    if blend == "hann":
        return np.cos(np.pi * (inside - centre) / patch) ** 2
    return np.exp(-((inside - centre) ** 2) / (2 * (patch / 8) ** 2))


def tile_weights(n, patch, overlap, blend):
    """Weights (tiles, patch) of an axis."""
    starts = [start for start, *_ in tiles(n, patch, overlap)]
    weights = np.zeros((len(starts), patch))
    for pixel in range(n):
        there = tiles_at(pixel, n, patch, overlap, blend)
        found = [tile_weight(pixel - starts[t], patch, blend) for t in there]
        for t, weight in zip(there, found, strict=True):
            weights[t, pixel - starts[t]] = weight / sum(found)
    return weights


def stitched(tile_pixels, size, patch_size, overlaps, blend, slab_axis, weights, linear):
    """An image (C, (Z), Y, X), pixel by pixel and tile by tile.

    `tile_pixels` has the axes of the grid, then C, then those of a tile; `weights` are float32.
    """
    axes = list(zip(size, patch_size, overlaps, strict=True))
    starts = [[start for start, *_ in tiles(*axis)] for axis in axes]
    image = np.empty((tile_pixels.shape[len(size)], *size), np.float32)
    for pixel in np.ndindex(*size):
        there = [tiles_at(p, *axis, blend) for p, axis in zip(pixel, axes, strict=True)]
        total = None
        for tile in sorted(product(*there), key=lambda tile: (tile[slab_axis], tile)):
            inside = [p - starts[d][t] for d, (p, t) in enumerate(zip(pixel, tile, strict=True))]
            value = tile_pixels[(*tile, slice(None), *inside)].astype(np.float32)
            if "scale" in linear:
                value = value * linear["scale"]
            if "offset" in linear:
                value = value + linear["offset"]
            weight = np.float32(1)
            for d, (t, i) in enumerate(zip(tile, inside, strict=True)):
                weight = weight * weights[d][t, i]
            if blend != "crop":
                value = value * weight
            total = value if total is None else total + value
        image[(slice(None), *pixel)] = total
    return image


# ---------------------------------------------------------------------------------------------
# Draws


def philox4x32(counter, key):
    """Philox4x32-10 of one counter, after the paper's pseudocode."""
    x0, x1, x2, x3 = counter
    k0, k1 = key
    for _ in range(10):
        a, b = x0 * 0xD2511F53, x2 * 0xCD9E8D57
        x0, x1, x2, x3 = (b >> 32) ^ x1 ^ k0, b % 2**32, (a >> 32) ^ x3 ^ k1, a % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return x0, x1, x2, x3


LOCATION, UNCORRELATED, PARTNER, WEIGHT, AUGMENTATION, ABSENT, ORDER = range(7)


def uniform(seed, epoch, index, stream, channel, k=0):
    """Number `k` in [0, 1) of a stream and channel; a block of the generator gives two."""
    counter = (index % 2**32, epoch, stream * 2**24 + index // 2**32, k // 2 * 2**24 + channel)
    words = philox4x32(counter, (seed % 2**32, seed // 2**32))
    high, low = words[:2] if k % 2 == 0 else words[2:]
    return (high * 2**32 + low) // 2**11 / 2**53


# ---------------------------------------------------------------------------------------------
# Comparing


def on_host(array):
    """An array of any backend as NumPy's."""
    is_device_array = hasattr(array, "get") and hasattr(array, "dtype")
    return array.get() if is_device_array else array


def assert_same(actual, expected):
    """Bit-equal copies, NaN included."""
    actual, expected = on_host(actual), on_host(expected)
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    assert actual.flags.c_contiguous
    np.testing.assert_array_equal(actual, expected)


def assert_filtered(actual, expected, dtype=np.float32):
    """Within 1e-6 of the largest value, and the same pixels NaN and infinite."""
    actual, expected = on_host(actual), on_host(expected)
    assert actual.dtype == dtype
    assert actual.shape == expected.shape
    assert actual.flags.c_contiguous
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(actual[~finite], expected[~finite])
    if finite.any():
        error = np.abs(actual[finite].astype(np.float64) - expected[finite])
        assert error.max() <= 1e-6 * np.abs(expected[finite]).max()
