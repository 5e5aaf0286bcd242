"""How often pages are read by what goes over whole images."""

from __future__ import annotations

import numpy as np
import pytest
from chunk_readers import ArrayReader
from pixels import distinct

import gpu_patch
from gpu_patch.feed import compute_normalization
from gpu_patch.images import ImageStack, PatchExtractor
from gpu_patch.pages import PageCache


def a_quarter(pixels, page=64):
    reader = ArrayReader(pixels, (1, 1, page, page))
    stack = ImageStack.by_chunk(reader, cache=PageCache(pixels.nbytes // 4))
    return PatchExtractor([stack])


@pytest.fixture(autouse=True)
def small_pages(monkeypatch):
    monkeypatch.setattr("gpu_patch.chunks.image._LEAST_BYTES", 0)


@pytest.mark.parametrize("kind", ["mean_std", "quantile"])
def test_statistics_read_each_page_once(kind):
    pixels = distinct((1, 2, 512, 448), "uint16")
    images = a_quarter(pixels)
    placed = gpu_patch.StratifiedPatching(images.shapes, (32, 32), seed=0)
    compute_normalization(gpu_patch.BasicPatchConstr(placed, images, seed=0), kind)
    assert images.cache.traffic.bytes_moved == pixels.nbytes


def test_a_prediction_reads_each_page_about_once(tmp_path):
    pixels = distinct((1, 1, 512, 448), "uint16")
    images = a_quarter(pixels)
    options = {"tile_size": (64, 64), "overlaps": (16, 16), "progress": False}
    found = gpu_patch.predict(images, lambda tiles: tiles, out=tmp_path / "found", **options)
    assert images.cache.traffic.bytes_moved <= 1.05 * pixels.nbytes
    assert found is not None
    assert np.isfinite(images.cache.traffic.megabytes_per_second)
