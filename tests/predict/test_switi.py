"""Sliding-window inner tiling through predict, against every tile by itself in float64."""

from __future__ import annotations

import threading
from contextlib import contextmanager

import numpy as np
import pytest

from gpu_patch import (
    BasicPatchConstr,
    ImageStack,
    PatchExtractor,
    PredMsPatchConstr,
    SwitiPatching,
    open_images,
    predict,
    stride_for,
)
from gpu_patch.feed import compute_normalization
from gpu_patch.predict import slab_writer

OPTIONS = {"tile_size": (16, 12), "overlaps": (6, 4), "progress": False}
STRIDE = (4, 3)


def images_of(sizes, axes="YX", device="cpu", n_samples=None):
    rng = np.random.default_rng(0)
    shapes = [size if n_samples is None else (n_samples, *size) for size in sizes]
    return PatchExtractor(
        [
            ImageStack.from_array(rng.normal(50, 9, s).astype(np.float32), axes, device=device)
            for s in shapes
        ]
    )


def model(batch):
    """Depends on where in the tile a pixel is, so that every tile says something else."""
    profile = np.arange(batch.shape[-1], dtype=np.float32)
    mean = batch.mean(axis=tuple(range(2, batch.ndim)), keepdims=True)
    parts = [batch[:, :1] * 0.5 + mean[:, :1], batch[:, -1:] + profile]
    return np.concatenate(parts, axis=1)


class Draws:
    """Another offset at each call of a sample, the same for the same tiles."""

    def __init__(self, n_samples):
        self.n_samples, self.calls = n_samples, 0

    def __call__(self, batch):
        number = self.calls % self.n_samples
        self.calls += 1
        return model(batch) + np.float32(number * 1.7)


def reference(images, tile_size, overlaps, stride, n_samples=1, multiscale_count=None):
    """Mean and deviation of each image, tile by tile; all values of a pixel are kept."""
    tiling = SwitiPatching(images.shapes, tile_size, overlaps, stride)
    if multiscale_count is None:
        constructor = BasicPatchConstr(tiling, images, seed=0)
    else:
        constructor = PredMsPatchConstr(tiling, images, multiscale_count, "reflect", seed=0)
    found = [[np.zeros((shape[0], 2, *shape[2:])) for _ in range(3)] for shape in images.shapes]
    for index in range(tiling.n_patches):
        tile = np.asarray(constructor.construct_batch([index]).input)
        spec = tiling.get_patch_spec(index)
        sums, squares, counts = found[spec["data_idx"]]
        inside, outside = (
            tuple(slice(a, a + n) for a, n in zip(spec[name], spec["crop_size"], strict=True))
            for name in ("crop_coords", "stitch_coords")
        )
        place = (spec["sample_idx"], slice(None), *outside)
        for number in range(n_samples):
            values = (model(tile)[0] + np.float32(number * 1.7))[(slice(None), *inside)]
            values = values.astype(np.float64)
            sums[place] += values
            squares[place] += values**2
            counts[place] += 1
    means = [s / n for s, _, n in found]
    stds = [np.sqrt(np.maximum(q - s**2 / n, 0) / np.maximum(n - 1, 1)) for s, q, n in found]
    return means, stds


def assert_close(found, expected):
    limit = 1e-6 * np.ptp(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=limit)


@pytest.mark.parametrize("n_samples", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 16, 1000])
def test_within_a_millionth_of_the_range(batch_size, n_samples):
    images = images_of([(41, 37), (15, 40), (9, 10)])
    means, stds = reference(images, (16, 12), (6, 4), STRIDE, n_samples)
    found = predict(
        images,
        Draws(n_samples),
        **OPTIONS,
        batch_size=batch_size,
        tiling="switi",
        stride=STRIDE,
        n_samples=n_samples,
        std=True,
    )
    for image, expected in enumerate(means):
        assert_close(found.images[image][None], expected)
        assert_close(found.std[image][None], stds[image])


def test_on_every_device(device):
    """With several images, samples and a normalisation; slabs of a few rows."""
    sizes = [(61, 37), (15, 40)]
    options = {**OPTIONS, "tiling": "switi", "stride": STRIDE, "batch_size": 24, "std": True}
    with _noting_slabs() as shapes:
        found = predict(images_of(sizes, device=device), lambda x: x, **options, n_samples=2)
    expected = predict(images_of(sizes), lambda x: x, **options, n_samples=2)
    for ours, theirs in zip(found, expected, strict=True):
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)
    # 10 rows of a layer, and 4 of each of the next ones in a batch, which are written meanwhile
    assert max(shape[1] for shape, dtype in shapes if dtype == np.float64) <= 10 + 2 * 3 * 4


@contextmanager
def _noting_slabs():
    """Give a list of what slabs are made: shape and data type."""
    shapes = []
    with pytest.MonkeyPatch.context() as patch:
        for kind in (slab_writer.SlabWriter, slab_writer.CudaSlabWriter):
            new = vars(kind)["new"]

            def noting(self, shape, dtype=np.float32, new=new):
                shapes.append((shape, np.dtype(dtype)))
                return new(self, shape, dtype)

            patch.setattr(kind, "new", noting)
        yield shapes


def test_three_dimensions_samples_and_context():
    images = images_of([(11, 20, 17)], "TZYX", n_samples=2)
    sizes = {"tile_size": (5, 8, 9), "overlaps": (2, 4, 3)}
    means, _ = reference(images, *sizes.values(), (3, 2, 2), multiscale_count=2)
    found = predict(
        images,
        model,
        **sizes,
        tiling="switi",
        stride=(3, 2, 2),
        multiscale_count=2,
        progress=False,
    )
    assert found.std is None
    assert_close(found.images[0], means[0])


def test_normalization_is_taken_back_after_the_mean():
    images = images_of([(41, 37)])
    tiling = SwitiPatching(images.shapes, (16, 12), (6, 4), STRIDE)
    constructor = BasicPatchConstr(tiling, images, seed=0)
    normalization = compute_normalization(constructor, "mean_std", progress=False)
    found = predict(
        images,
        lambda batch: batch * 2,
        **OPTIONS,
        tiling="switi",
        stride=STRIDE,
        normalization=normalization,
        std=True,
    )
    image = np.asarray(images.image_stacks[0].data)[0, 0].astype(np.float64)
    mean = float(normalization.input_statistics[0][0])
    np.testing.assert_allclose(found.images[0], 2 * (image - mean) + mean, rtol=1e-5)
    # all tiles say the same of a pixel
    assert np.abs(found.std[0]).max() < 1e-5


def test_n_draws_finds_the_stride():
    images = images_of([(41, 37)])
    options = {**OPTIONS, "tiling": "switi"}
    by_count = predict(images, model, **options, n_draws=9)
    by_stride = predict(images, model, **options, stride=stride_for(9, (16, 12), (6, 4)))
    np.testing.assert_array_equal(by_count.images[0], by_stride.images[0])
    by_default = predict(images, model, **options, n_draws=64)
    np.testing.assert_array_equal(predict(images, model, **options).images[0], by_default.images[0])


def test_the_largest_stride_is_inner_tiling():
    images = images_of([(41, 37)])
    slid = predict(images, lambda x: x, **OPTIONS, tiling="switi", stride=(10, 8)).images[0]
    side_by_side = predict(images, lambda x: x, **OPTIONS).images[0]
    np.testing.assert_array_equal(slid, side_by_side)


def test_batches_and_slabs_make_no_difference():
    images = images_of([(60, 37), (20, 70)])
    options = {**OPTIONS, "tiling": "switi", "stride": STRIDE, "std": True}
    expected = predict(images, model, **options, batch_size=1)
    for batch_size in (3, 64, 5000):
        found = predict(images, model, **options, batch_size=batch_size)
        for a, b in zip(
            [*found.images, *found.std], [*expected.images, *expected.std], strict=True
        ):
            np.testing.assert_array_equal(a, b)


def test_without_the_deviation_of_samples():
    images = images_of([(41, 37)])
    for tiling in ({}, {"tiling": "switi", "stride": STRIDE}):
        both = predict(images, Draws(2), **OPTIONS, **tiling, n_samples=2)
        mean = predict(images, Draws(2), **OPTIONS, **tiling, n_samples=2, std=False)
        assert mean.std is None
        assert both.std is not None
        np.testing.assert_array_equal(mean.images[0], both.images[0])


class StoppedError(Exception):
    """The run is stopped."""


def test_resume_ranks_and_chunks(tmp_path):
    pytest.importorskip("zarr")
    images = images_of([(70, 40), (30, 33)])
    options = {
        **OPTIONS,
        "tiling": "switi",
        "stride": STRIDE,
        "std": True,
        "chunk_size": (16, 16),
        "model_id": "one",
    }
    calls = 0

    def stopping(batch):
        nonlocal calls
        calls += 1
        if calls == 12:
            raise StoppedError
        return model(batch)

    predict(images, model, **options, out=tmp_path / "whole")
    with pytest.raises(StoppedError):
        predict(images, stopping, **options, out=tmp_path / "resumed")
    predict(images, model, **options, out=tmp_path / "resumed", resume=True)
    with pytest.raises(Exception, match="stride"):
        predict(
            images,
            model,
            **{**options, "stride": (5, 4)},
            out=tmp_path / "resumed",
            resume=True,
        )
    ranks = [
        threading.Thread(
            target=predict,
            args=(images, model),
            kwargs={**options, "out": tmp_path / "ranks", "rank": rank, "world_size": 3},
        )
        for rank in range(3)
    ]
    for thread in ranks:
        thread.start()
    for thread in ranks:
        thread.join()
    names = sorted(path.name for path in (tmp_path / "whole").glob("*.zarr"))
    assert len(names) == 4
    for name in names:
        expected = open_images(tmp_path / "whole" / name, device="cpu").image_stacks[0].data
        for way in ("resumed", "ranks"):
            found = open_images(tmp_path / way / name, device="cpu").image_stacks[0].data
            np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


def test_images_by_chunk(tmp_path):
    pytest.importorskip("zarr")
    images = images_of([(70, 60)])
    image = np.asarray(images.image_stacks[0].data)[0, 0]
    import zarr

    zarr.create_array(tmp_path / "a.zarr", data=image, chunks=(16, 16))
    chunked = open_images(tmp_path / "a.zarr", "YX", device="cpu", by_chunk=True)
    options = {**OPTIONS, "tiling": "switi", "stride": STRIDE}
    np.testing.assert_array_equal(
        predict(chunked, model, **options).images[0], predict(images, model, **options).images[0]
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tiling": "sliding"}, "tiling must be one of"),
        ({"n_draws": 4}, "n_draws needs tiling='switi'"),
        ({"stride": (1, 1)}, "stride needs tiling='switi'"),
        ({"tiling": "switi", "stride": (1, 1), "n_draws": 4}, "n_draws and stride say the same"),
        ({"tiling": "switi", "stride": (11, 1)}, r"stride\[0\] must be at most tile_size\[0\] − "),
        ({"tiling": "switi", "n_draws": 1000}, "n_draws must be at most 80"),
        ({"tiling": "switi", "blend": "hann"}, "blend='hann' has no place in tiling='switi'"),
        ({"std": True}, "std=True needs several values a pixel"),
        ({"std": 1, "n_samples": 2}, "std must be True, False or None"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        predict(images_of([(20, 20)]), model, **OPTIONS, **options)
