"""Answers that predict makes where the images are: labels, quantiles, channels, types, scales."""

from __future__ import annotations

import json
import threading

import numpy as np
import pytest
from emulation import fake_cupy
from emulation.gpu import gpu
from emulation.runtime import available
from reference import on_host

from gpu_patch import ImageStack, PatchExtractor, open_images, predict
from gpu_patch.device import to_cuda
from gpu_patch.feed import Normalization
from gpu_patch.predict import room

OPTIONS = {"tile_size": (16, 12), "overlaps": (6, 4), "batch_size": 5, "progress": False}
SWITI = {"tiling": "switi", "stride": (4, 3)}


def images_of(*shapes, axes="YX", device="cpu"):
    """Images of values that all differ."""
    rng = np.random.default_rng(0)
    pixels = [rng.permutation(np.prod(shape)).reshape(shape) / 7 for shape in shapes]
    return PatchExtractor(
        [ImageStack.from_array(p.astype(np.float32), axes, device=device) for p in pixels]
    )


class Model:
    """Several channels, others for each sample, that also depend on where in the tile a pixel is.

    Runs on any device, and gives the same for the same tiles.
    """

    def __init__(self, n_channels=4, n_samples=1, bad=None):
        self.n_channels, self.n_samples, self.bad = n_channels, n_samples, bad
        self.calls = 0

    def __call__(self, batch):
        number = self.calls % self.n_samples
        self.calls += 1
        x = on_host(batch)[:, :1].astype(np.float32)
        profile = np.arange(x[0, 0].size, dtype=np.float32).reshape(x.shape[2:]) / 50
        channels = [
            np.sin(x * (c + 1) + number * 1.7) * (10 + c) + profile for c in range(self.n_channels)
        ]
        found = np.concatenate(channels, axis=1)
        if self.bad is not None and self.calls == 3:
            found[1, 2] = self.bad
        return found if isinstance(batch, np.ndarray) else to_cuda(found, "cuda:0")


def both(images, n_channels=4, n_samples=1, like=None, **options):
    """What is asked for, and the float32 prediction that it is of."""
    plain = predict(
        like or images, Model(n_channels, n_samples), **OPTIONS, n_samples=n_samples,
        **{k: v for k, v in options.items() if k in ("tiling", "stride", "normalization", "blend")},
    )  # fmt: skip
    found = predict(images, Model(n_channels, n_samples), **OPTIONS, n_samples=n_samples, **options)
    return found, plain


@pytest.mark.parametrize("tiling", [{}, {"blend": "hann"}, SWITI], ids=["crop", "hann", "switi"])
@pytest.mark.parametrize("n_samples", [1, 3])
def test_labels_are_the_largest_channel_of_the_mean(tiling, n_samples, device):
    shapes = [(41, 37), (15, 40), (70, 9)]
    images, like = images_of(*shapes, device=device), images_of(*shapes)
    found, plain = both(images, 4, n_samples, like, reduce="argmax", **tiling)
    assert found.std is None
    for labels, means in zip(found.images, plain.images, strict=True):
        assert labels.dtype == np.uint8
        np.testing.assert_array_equal(labels, np.argmax(means, axis=0))
        assert len(np.unique(labels)) == 4


@pytest.mark.parametrize(
    ("n_channels", "asked", "expected"),
    [(256, None, "uint8"), (257, None, "uint16"), (128, "int8", "int8"), (3, "int16", "int16")],
)
def test_labels_are_of_the_smallest_type(n_channels, asked, expected):
    found, plain = both(images_of((30, 33)), n_channels, reduce="argmax", dtype=asked)
    assert found.images[0].dtype == expected
    np.testing.assert_array_equal(found.images[0], np.argmax(plain.images[0], axis=0))


@pytest.mark.parametrize("size", [(41, 37), (17, 150)])
def test_quantiles_of_all_samples(size, device):
    at = (0.05, 0.5, 1.0)
    images = images_of(size, device=device)
    samples = [
        predict(images_of(size), lambda x, n=n: _sample(x, n), **OPTIONS).images[0]
        for n in range(5)
    ]
    found = predict(images, Model(4, 5), **OPTIONS, n_samples=5, reduce=at)
    assert found.std is None
    expected = np.quantile(np.array(samples, np.float64), at, axis=0)  # Q, C, Y, X
    expected = np.moveaxis(expected, 0, 1).reshape(12, *size)
    np.testing.assert_allclose(found.images[0], expected, rtol=0, atol=3e-6)
    np.testing.assert_array_equal(found.images[0][2::3], np.max(samples, axis=0))


def _sample(batch, number):
    model = Model(4, 5)
    model.calls = number
    return model(batch)


@pytest.mark.parametrize("tiling", [{}, SWITI], ids=["inner", "switi"])
def test_chosen_channels(tiling, device):
    images, like = images_of((41, 37), device=device), images_of((41, 37))
    found, plain = both(images, 5, 2, like, channels=[3, 0], std=True, **tiling)
    np.testing.assert_array_equal(found.images[0], plain.images[0][[3, 0]])
    labels, _ = both(images, 5, 2, like, channels=[3, 0, 4], reduce="argmax", **tiling)
    np.testing.assert_array_equal(labels.images[0], plain.images[0][[3, 0, 4]].argmax(axis=0))
    plain = predict(like, Model(5, 2), **OPTIONS, n_samples=2, std=True, **tiling)
    np.testing.assert_array_equal(found.std[0], plain.std[0][[3, 0]])


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float16"])
@pytest.mark.parametrize("tiling", [{}, SWITI], ids=["inner", "switi"])
def test_types_with_a_scale(tiling, dtype, device):
    images, like = images_of((41, 37), device=device), images_of((41, 37))
    scale, offset = 0.125, -3.5
    found, plain = both(
        images, 3, 2, like, dtype=dtype, scale_factor=scale, add_offset=offset, std=True, **tiling
    )
    wanted = (plain.images[0] - np.float32(offset)) * np.float32(1 / scale)
    if dtype != "float16":
        limits = np.iinfo(dtype)
        wanted = np.clip(np.rint(wanted), limits.min, limits.max)
    assert found.images[0].dtype == dtype
    np.testing.assert_array_equal(found.images[0], wanted.astype(dtype))
    assert found.std[0].dtype == np.float32  # as it is
    held = np.abs(wanted) < 127
    back = found.images[0].astype(np.float64) * scale + offset
    if dtype[0] != "u":
        assert np.abs(back - plain.images[0])[held].max() <= scale / 2 + 1e-6


NORMALIZATION = Normalization.quantile(0, 900, [10, 20, 30, 5], [1000, 1100, 1300, 1400])


@pytest.mark.parametrize("tiling", [{}, SWITI], ids=["inner", "switi"])
@pytest.mark.parametrize("answer", [
    {"reduce": "argmax"}, {"channels": [3, 1]}, {"channels": [3, 1, 0], "reduce": "argmax"},
    {"dtype": "uint16"}, {"dtype": "uint16", "std": True}, {"reduce": [0.5, 1.0]},
])  # fmt: skip
def test_values_are_taken_back_first(answer, tiling, device):
    if tiling and not isinstance(answer.get("reduce", ""), str):
        pytest.skip("sliding tiles have no quantiles")
    images, like = images_of((41, 37), device=device), images_of((41, 37))
    given = {"normalization": NORMALIZATION, **tiling}
    found, plain = both(images, 4, 3, like, **answer, **given)
    values = plain.images[0][answer.get("channels", slice(None))]
    if answer.get("reduce") == "argmax":
        values = values.argmax(axis=0)
    elif "dtype" in answer:
        values = np.clip(np.rint(values), 0, 65535)
    elif "reduce" in answer:
        inner = predict(like, Model(4, 3), **OPTIONS, n_samples=3, reduce=[0.5, 1.0]).images[0]
        back = NORMALIZATION.inverse(4)
        scale, rest, center = (np.repeat(part, 2)[:, None, None] for part in back)
        values = None
        assert inner.shape == found.images[0].shape
        np.testing.assert_allclose(
            found.images[0], _normalized_quantiles(like, scale, rest, center), rtol=1e-6
        )
    if values is not None:
        np.testing.assert_array_equal(found.images[0], values)
    if answer.get("std"):
        np.testing.assert_array_equal(found.std[0], plain.std[0])


def _normalized_quantiles(images, scale, rest, center):
    """Quantiles of what the model makes of normalised tiles, taken back by hand."""
    skipping = Normalization.quantile(0, 900, skip_target=True)
    options = {"n_samples": 3, "reduce": [0.5, 1.0], "normalization": skipping}
    raw = predict(images, Model(4, 3), **OPTIONS, **options).images[0]
    return raw * scale + rest + center


def test_three_dimensions_samples_and_context(device):
    options = {"tile_size": (5, 8, 9), "overlaps": (2, 4, 3), "progress": False}
    options |= {"multiscale_count": 2, "batch_size": 7}
    images, like = (
        images_of((2, 11, 20, 17), axes="TZYX", device=where) for where in (device, "cpu")
    )
    plain = predict(like, Model(3), **options).images[0]
    labels = predict(images, Model(3), **options, reduce="argmax").images[0]
    np.testing.assert_array_equal(labels, plain.argmax(axis=1))


@pytest.mark.parametrize(
    ("asked", "bad", "message"),
    [
        ({"reduce": "argmax"}, np.nan, "array has values that are NaN, of which no channel"),
        ({"dtype": "uint8"}, np.nan, "array has values that are not finite, which uint8 cannot"),
        ({"dtype": "int16", "scale_factor": 2}, np.inf, "not finite, which int16 cannot hold"),
        ({"reduce": "argmax", **SWITI}, np.nan, "array has values that are NaN"),
    ],
)
def test_what_cannot_be_held_is_an_error(asked, bad, message, device):
    images = images_of((41, 37), device=device)
    with pytest.raises(ValueError, match=message):
        predict(images, Model(bad=bad), **OPTIONS, **asked)


def test_what_can_be_held_is_none(device):
    images = images_of((41, 37), device=device)
    infinite = predict(images, Model(bad=np.inf), **OPTIONS, reduce="argmax").images[0]
    assert (infinite == 2).any()
    half = predict(images, Model(bad=np.nan), **OPTIONS, dtype="float16").images[0]
    assert np.isnan(half).any()
    assert not np.isnan(half[:2]).any()


# ---- what is written ---------------------------------------------------------------------------

LABELS = {"reduce": "argmax", "channel_names": ["nucleus", "cell", "rest", "none"]}
SCALED = {"dtype": "int16", "scale_factor": 0.25, "add_offset": -2.0, "channel_names": list("abcd")}
QUANTILES = {"reduce": [0.1, 0.9], "n_samples": 3, "channel_names": list("abcd")}


@pytest.mark.parametrize("ending", [".ome.zarr", ".ome.tif", ".npy"])
@pytest.mark.parametrize("asked", [LABELS, SCALED, QUANTILES, {"channels": [2]}])
def test_files_hold_the_same(asked, ending, tmp_path):
    pytest.importorskip({".ome.zarr": "zarr", ".ome.tif": "tifffile"}.get(ending, "numpy"))
    images, n_samples = images_of((70, 301)), asked.get("n_samples", 1)
    expected = predict(images, Model(4, n_samples), **OPTIONS, **asked).images[0]
    path = tmp_path / f"a{ending}"
    predict(images, Model(4, n_samples), **OPTIONS, **asked, out=path)
    axes = None if ending != ".npy" else "CYX"[3 - expected.ndim :]
    found = open_images(path, axes, device="cpu").image_stacks[0].data
    np.testing.assert_array_equal(np.asarray(found)[0].reshape(expected.shape), expected)
    if ending != ".npy":
        assert np.asarray(found).dtype == expected.dtype


def test_ome_zarr_says_what_values_mean(tmp_path):
    zarr = pytest.importorskip("zarr")
    images = images_of((70, 301))
    for name, asked in (("labels", LABELS), ("scaled", SCALED), ("quantiles", QUANTILES)):
        model = Model(4, asked.get("n_samples", 1))
        predict(images, model, **OPTIONS, **asked, out=tmp_path / f"{name}.ome.zarr")
    labels = zarr.open_group(tmp_path / "labels.ome.zarr", mode="r")
    assert labels.attrs["ome"]["multiscales"][0]["type"] == "nearest"
    assert labels.attrs["gpu_patch"]["labels"] == LABELS["channel_names"]
    fine, coarse = labels["0"][:], labels["1"][:]
    np.testing.assert_array_equal(coarse, fine[::2, ::2])
    scaled = zarr.open_group(tmp_path / "scaled.ome.zarr", mode="r")
    for level in "01":
        assert dict(scaled[level].attrs) == {"scale_factor": 0.25, "add_offset": -2.0}
    assert scaled.attrs["gpu_patch"]["scale_factor"] == 0.25
    plain = predict(images, Model(4), **OPTIONS).images[0]
    assert np.abs(scaled["0"][:] * 0.25 - 2.0 - plain).max() <= 0.125 + 1e-6
    named = zarr.open_group(tmp_path / "quantiles.ome.zarr", mode="r").attrs["ome"]["omero"]
    names = [channel["label"] for channel in named["channels"]]
    assert names[:3] == ["a q0.1", "a q0.9", "b q0.1"]


def test_tiff_says_what_values_mean(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    images, path = images_of((40, 50)), tmp_path / "a.ome.tif"
    predict(images, Model(4), **OPTIONS, **SCALED, std=None, out=path)
    with tifffile.TiffFile(path) as file:
        described = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Description"]
    told = described if isinstance(described, dict) else json.loads(described)
    assert told == {"scale_factor": 0.25, "add_offset": -2.0}


class StoppedError(Exception):
    """The run is stopped."""


@pytest.mark.parametrize(
    ("asked", "other", "message"),
    [
        ({"reduce": "argmax"}, {}, "reduce"),
        ({"reduce": "argmax"}, {"reduce": "argmax", "channels": [0, 1]}, "channels"),
        ({"dtype": "uint8"}, {"dtype": "uint16"}, "dtype"),
        ({"dtype": "uint8", "add_offset": 1}, {"dtype": "uint8"}, "add_offset"),
        (
            {"dtype": "int8", "scale_factor": 2},
            {"dtype": "int8", "scale_factor": 3},
            "scale_factor",
        ),
        ({"reduce": [0.1]}, {"reduce": [0.2]}, "reduce"),
    ],
)
def test_only_the_same_answer_is_gone_on_with(asked, other, message, tmp_path):
    zarr = pytest.importorskip("zarr")
    images, n_samples = images_of((70, 40)), 3 if "reduce" in asked else 1
    options = {**OPTIONS, "chunk_size": (16, 16), "model_id": "one", "n_samples": n_samples}
    model = Model(4, n_samples)

    def stopping(batch):
        if model.calls == 5 * n_samples:
            raise StoppedError
        return model(batch)

    out = tmp_path / "a.ome.zarr"
    with pytest.raises(StoppedError):
        predict(images, stopping, **options, **asked, out=out)
    with pytest.raises(ValueError, match=f"cannot be gone on with: .*its {message} is"):
        predict(images, Model(4, n_samples), **options, **other, out=out, resume=True, std=False)
    predict(images, Model(4, n_samples), **options, **asked, out=out, resume=True)
    expected = predict(images, Model(4, n_samples), **OPTIONS, **asked, n_samples=n_samples)
    found = zarr.open_array(out / "0", mode="r")[:]
    np.testing.assert_array_equal(found, expected.images[0])


def test_ranks_and_images_by_chunk(tmp_path):
    zarr = pytest.importorskip("zarr")
    images = images_of((70, 60))
    pixels = np.asarray(images.image_stacks[0].data)[0, 0]
    zarr.create_array(tmp_path / "image.zarr", data=pixels, chunks=(16, 16))
    chunked = open_images(tmp_path / "image.zarr", "YX", device="cpu", by_chunk=True)
    options = {**OPTIONS, **SWITI, "reduce": "argmax", "channels": [1, 2, 3]}
    expected = predict(images, Model(4), **options).images[0]
    np.testing.assert_array_equal(predict(chunked, Model(4), **options).images[0], expected)
    written = {"out": tmp_path / "a.ome.zarr", "chunk_size": (16, 16), "model_id": "one"}
    ranks = [
        threading.Thread(
            target=predict,
            args=(images, Model(4)),
            kwargs={**options, **written, "rank": rank, "world_size": 3},
        )
        for rank in range(3)
    ]
    for thread in ranks:
        thread.start()
    for thread in ranks:
        thread.join()
    found = zarr.open_array(tmp_path / "a.ome.zarr" / "0", mode="r")[:]
    np.testing.assert_array_equal(found, expected)


# ---- bytes and memory --------------------------------------------------------------------------


@pytest.mark.skipif(not available(), reason="the emulated backend needs a C++ compiler")
@pytest.mark.parametrize(
    ("asked", "per_pixel"),
    [
        ({}, 400),
        ({"reduce": "argmax"}, 1),
        ({"reduce": "argmax", "tiling": "switi", "stride": (5, 8)}, 1),
        ({"channels": [7, 99], "dtype": "float16"}, 4),
        ({"dtype": "uint8"}, 100),
    ],
)
def test_no_more_is_copied_to_the_host_than_is_written(asked, per_pixel):
    """Of a hundred labels a pixel."""
    base = np.arange(100, dtype=np.float32).reshape(1, 100, 1, 1)

    with fake_cupy.installed():
        images = images_of((60, 47), device="cuda")
        tiles = to_cuda(np.broadcast_to(base, (5, 100, 16, 12)).copy(), "cuda:0")
        gpu.log.clear()
        found = predict(images, lambda x: tiles[: len(x)], **OPTIONS, **asked)
        copied = sum(a.what for a in gpu.log if a.kind == "download")
    wanted = per_pixel * 60 * 47
    assert found.images[0].nbytes == wanted
    assert wanted <= copied <= 1.2 * wanted


def test_there_must_be_room_for_the_samples_of_quantiles(monkeypatch, device, tmp_path):
    options = {**OPTIONS, "n_samples": 50, "reduce": [0.5], "out": tmp_path / "a.npy"}
    of_tile = 4 * 2 * 16 * 12 * 51
    images = images_of((41, 37), device=device)
    monkeypatch.setattr(room, "free_host_bytes", lambda: 3 * of_tile)
    monkeypatch.setattr(room.devices, "free_bytes", lambda device: 3 * of_tile)
    with pytest.raises(MemoryError, match=r"all 50 samples of a batch, .* batch_size=3 fits"):
        predict(images, Model(2, 50), **options)
    assert not list(tmp_path.iterdir())
    predict(images, Model(2, 50), **{**options, "batch_size": 3})


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"reduce": "argmin"}, "reduce must be one of 'argmax', found 'argmin'"),
        ({"reduce": 0.5}, r"reduce must be 'argmax', or quantiles such as \[0.05"),
        ({"reduce": []}, "reduce must be 'argmax', or quantiles"),
        ({"reduce": [0.5, 1.5], "n_samples": 2}, r"reduce\[1\] must be in \[0, 1\], found 1.5"),
        ({"reduce": [0.5]}, "need several samples: n_samples of at least 2"),
        ({"reduce": [0.5], "n_samples": 2, "blend": "hann"}, "with blend='crop', found 'hann'"),
        ({"reduce": [0.5], "n_samples": 2, "tiling": "switi"}, "std=True, standard deviations"),
        ({"reduce": "argmax", "std": True, "n_samples": 2}, "std=True is beside means"),
        ({"reduce": "argmax", "dtype": "float16"}, "dtype must be of whole numbers for reduce"),
        ({"reduce": "argmax", "scale_factor": 2}, "scale_factor has no place in reduce='argmax'"),
        ({"scale_factor": 2}, "scale_factor needs dtype of whole numbers or float16"),
        ({"add_offset": 1, "dtype": "float32"}, "add_offset needs dtype of whole numbers"),
        ({"scale_factor": 0, "dtype": "int8"}, "scale_factor must not be 0"),
        ({"scale_factor": np.inf, "dtype": "int8"}, "scale_factor must be a finite number"),
        ({"add_offset": "1", "dtype": "int8"}, "add_offset must be a finite number, found '1'"),
        ({"channels": 1}, "channels must be a sequence of whole numbers"),
        ({"channels": []}, "channels must be some channels, each once"),
        ({"channels": [1, 1]}, "channels must be some channels, each once"),
        ({"channels": [-1]}, r"channels\[0\] must be a whole number of at least 0"),
        ({"channels": [0, 4]}, r"channels\[1\] is 4, but the model returns 4 channels"),
        ({"channels": [2], "reduce": "argmax"}, "reduce='argmax' needs at least 2 channels"),
        ({"channels": [1, 2], "channel_names": ["a"]}, "a name for each of 2 channels, found 1"),
    ],
)
def test_wrong_answers_are_named(asked, message):
    images = images_of((41, 37))
    with pytest.raises((ValueError, TypeError, IndexError), match=message):
        predict(images, Model(), **OPTIONS, **asked)


def test_labels_beyond_a_type_are_named():
    with pytest.raises(ValueError, match="of 129 channels has numbers that dtype='int8' cannot"):
        predict(images_of((20, 20)), Model(129), **OPTIONS, reduce="argmax", dtype="int8")
