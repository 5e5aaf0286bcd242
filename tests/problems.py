"""Hypothesis strategies for what the operations work on: images, sources, weights."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from pixels import DTYPES, distinct

from gpu_patch.sources import ChannelSources

# Largest patch along an axis for each number of scales, so that windows stay small
MOST_PIXELS = {2: (12, 12, 10, 9, 6), 3: (7, 7, 5, 3, 2)}
AXIS_SIZES = st.one_of(st.just(1), st.integers(2, 9), st.integers(10, 40))
LONG_AXIS_SIZES = st.one_of(AXIS_SIZES, st.integers(41, 150))


class Problem(NamedTuple):
    images: list[np.ndarray]
    sources: ChannelSources
    weights: np.ndarray
    patch_size: tuple[int, ...]
    n_scales: int


def coords_near(draw, n, patch, n_scales, centre):
    """First pixel of a patch; the window of patch · 2^n_scales touches the image."""
    if centre == "inside":
        return draw(st.integers(0, n - 1)) - patch // 2
    size = patch * 2**n_scales
    lowest = 1 - size + size // 2
    before, after = st.integers(lowest, -1), st.integers(n, n - 1 + size // 2)
    either = st.one_of(*([before] if lowest < 0 else []), *([after] if size > 1 else []))
    return draw(st.integers(0, n - 1) if size == 1 else either) - patch // 2


@st.composite
def problems(
    draw, scales=range(1, 6), dtypes=DTYPES, centre="inside", most_channels=4, square=False
):
    """A batch: several images of different shapes and types, channels from one place or several.

    `centre` says whether the centre of a patch is inside or outside its image; `square` whether
    patches are square in XY, None for some.
    """
    n_dims = draw(st.sampled_from([2, 3]))
    n_scales = draw(st.sampled_from(list(scales)))
    most = MOST_PIXELS[n_dims][max(n_scales, 1) - 1]
    patch_size = tuple(draw(st.integers(1, most)) for _ in range(n_dims))
    if square or (square is None and draw(st.booleans())):
        patch_size = (*patch_size[:-1], patch_size[-2])
    n_channels = draw(st.integers(1, most_channels))
    same_dtype = draw(st.booleans())
    dtype = draw(st.sampled_from(dtypes))
    images = []
    for i in range(draw(st.integers(1, 3))):
        size = [draw(LONG_AXIS_SIZES if n_dims == 2 else AXIS_SIZES) for _ in range(n_dims)]
        shape = (draw(st.integers(1, 2)), n_channels, *size)
        own = dtype if same_dtype else draw(st.sampled_from(dtypes))
        images.append(distinct(shape, own, seed=i))
    chosen = draw(st.lists(st.integers(0, n_channels - 1), min_size=1, max_size=most_channels))
    n_samples = draw(st.integers(1, 4))
    n_places = 1 if draw(st.booleans()) else len(chosen)
    places = []
    for _ in range(n_samples * n_places):
        image = draw(st.integers(0, len(images) - 1))
        shape = images[image].shape
        coords = [
            coords_near(draw, n, p, n_scales, centre)
            for n, p in zip(shape[2:], patch_size, strict=True)
        ]
        places.append((image, draw(st.integers(0, shape[0] - 1)), coords))
    sources = ChannelSources(
        np.array([p[0] for p in places]).reshape(n_samples, n_places),
        np.array([p[1] for p in places]).reshape(n_samples, n_places),
        np.array([p[2] for p in places]).reshape(n_samples, n_places, n_dims),
        np.array(chosen),
    )
    seed = draw(st.integers(0, 2**32 - 1))
    weights = np.random.default_rng(seed).uniform(0.1, 1.5, (n_samples, len(chosen)))
    return Problem(images, sources, weights.astype(np.float32), patch_size, n_scales)


def random_problem(seed, n_dims, n_scales, patch_size, size, dtypes=("uint16",), **options):
    """One batch with NumPy's generator, for tests that repeat it."""
    rng = np.random.default_rng(seed)
    n_samples, n_channels = options.get("n_samples", 5), options.get("n_channels", 3)
    images = [
        distinct((2, n_channels, *rng.integers(size // 2, size + 1, n_dims)), dtype, seed=i)
        for i, dtype in enumerate(dtypes)
    ]
    n_places = 1 if options.get("correlated", True) else n_channels
    image_idx = rng.integers(0, len(images), (n_samples, n_places))
    spatial = np.array([image.shape[2:] for image in images])[image_idx]
    if options.get("inside", False):
        coords = rng.integers(0, spatial - patch_size + 1)
    else:
        coords = rng.integers(0, spatial) - np.array(patch_size) // 2
    sources = ChannelSources(
        image_idx,
        rng.integers(0, 2, image_idx.shape),
        coords,
        rng.permutation(n_channels),
    )
    weights = rng.uniform(0.1, 1.5, (n_samples, n_channels)).astype(np.float32)
    return Problem(images, sources, weights, tuple(patch_size), n_scales)
