"""Which pages windows read: all that a pixel by pixel count finds, and hardly more."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_patch.chunks import ChunkedImage
from gpu_patch.geometry import border_index, border_range, window_start
from gpu_patch.pages import PageCache
from gpu_patch.pages.touches import touches
from gpu_patch.sources import ChannelSources


class Nothing:
    """The description of an image, without pixels."""

    def __init__(self, shape, chunk_shape):
        self.shape, self.dtype, self.chunk_shape = shape, np.dtype("uint8"), chunk_shape


def pixel_by_pixel(image, sources, patch, scale, n_scales, mode):
    """Pairs of sample and page, by reading every pixel's page."""
    found = set()
    n_samples, n_places = sources.image_idx.shape
    for b, c in itertools.product(range(n_samples), range(len(sources.channels))):
        k = c if n_places > 1 else 0
        axes = []
        for d, (p, n, page) in enumerate(
            zip(patch, image.shape[2:], image.page_shape[2:], strict=True)
        ):
            own = int(sources.coords[b, k, d])
            read = window_start(own, p, scale) + np.arange(p << scale)
            lo, hi = border_range(window_start(own, p, n_scales), p << n_scales, n, mode)
            index = border_index(read, lo, hi, mode)
            axes.append(sorted(set((index[index >= 0] // page).tolist())))
        s = int(sources.sample_idx[b, k]) // image.page_shape[0]
        channel = int(sources.channels[c]) // image.page_shape[1]
        for place in itertools.product([s], [channel], *axes):
            found.add((b, image.base + int((np.array(place) * image.strides).sum())))
    return found


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_all_pages_and_no_others(data):
    draw = data.draw
    n_dims = draw(st.integers(2, 3))
    shape = (3, 3, *draw(st.lists(st.integers(3, 30), min_size=n_dims, max_size=n_dims)))
    pages = (
        draw(st.integers(1, 2)),
        draw(st.integers(1, 3)),
        *draw(st.lists(st.integers(1, 9), min_size=n_dims, max_size=n_dims)),
    )
    patch = draw(st.lists(st.integers(1, 6), min_size=n_dims, max_size=n_dims))
    n_scales = draw(st.integers(1, 3))
    mode = draw(st.sampled_from(["zero", "reflect", "wrap", "periodic"]))
    n_places = draw(st.sampled_from([1, 3]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    cache = PageCache(draw(st.sampled_from([64, 10**6])))  # one channel a page, or all
    image = ChunkedImage(Nothing(shape, pages), cache)
    image.chunk_shape = tuple(min(a, b) for a, b in zip(pages, shape, strict=True))
    paged = cache.pool.paged[image.number]
    # as far outside as patches may lie: some of the context is of the image
    limits = [(-(p // 2), n - 1 - p // 2) for p, n in zip(patch, shape[2:], strict=True)]
    coords = np.stack([rng.integers(a, b + 1, (4, n_places)) for a, b in limits], axis=-1)
    sources = ChannelSources(
        np.zeros((4, n_places), np.int64),
        rng.integers(0, 3, (4, n_places)),
        coords,
        np.array([0, 2, 1]),
    )
    scale = n_scales - 1
    found = set()
    for number, sample, page in touches([paged], sources, patch, scale, n_scales, mode):
        assert number == 0
        found |= set(zip(sample.tolist(), page.tolist(), strict=True))
    expected = pixel_by_pixel(paged, sources, patch, scale, n_scales, mode)
    assert found >= expected
    if mode != "reflect":
        assert found == expected
