"""TIFF files as other programs write them: pixels, axes, and what cannot be read."""

import numpy as np
import pytest
from formats import canonical
from whole import read_image

from gpu_patch import ImageStack

tifffile = pytest.importorskip("tifffile")
Image = pytest.importorskip("PIL.Image")


@pytest.fixture(autouse=True)
def on_the_host(monkeypatch):
    """What these tests prove is the same everywhere; images stay where NumPy can look at them."""
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")


def pixels(*shape, dtype=np.uint16):
    """Pixels that differ, over the whole range of small types."""
    values = np.arange(np.prod(shape)).reshape(shape)
    return values % 3 == 1 if dtype == "bool" else (values * 7 % 60000).astype(dtype)


def check(path, data, axes):
    """Reading the file without a word about its axes gives these pixels and these axes."""
    stack = ImageStack.from_tiff(path)
    assert stack.original_axes == axes
    assert stack.original_data_shape == data.shape
    assert stack.data_dtype == data.dtype
    assert np.array_equal(stack.data, canonical(data, axes))
    assert stack.source == path
    assert stack.metadata["source"] == str(path)
    assert stack.metadata["dtype"] == str(data.dtype)
    found, found_axes = read_image(path)
    assert found_axes == axes
    assert found.dtype == data.dtype
    assert np.array_equal(found, data)


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int8", "uint16", "int16", "float16", "float32", "float64", "int32"]
)
def test_plain_file_of_every_type(tmp_path, dtype):
    data = pixels(9, 13, dtype=dtype)
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="minisblack")
    check(tmp_path / "a.tif", data, "YX")
    kept = ImageStack.from_tiff(tmp_path / "a.tif").data.dtype
    assert kept == (np.float32 if dtype in ("float64", "int32") else np.dtype(dtype))


@pytest.mark.parametrize(
    "options",
    [
        {"bigtiff": True},
        {"byteorder": ">"},
        {"byteorder": ">", "bigtiff": True, "tile": (16, 32)},
        {"tile": (16, 16)},
        {"rowsperstrip": 5},
        {"compression": "zlib"},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_layouts_of_the_file(tmp_path, options, dtype):
    data = pixels(40, 53, dtype=dtype)
    tifffile.imwrite(tmp_path / "a.tiff", data, photometric="minisblack", **options)
    check(tmp_path / "a.tiff", data, "YX")


@pytest.mark.parametrize("axes", ["YX", "ZYX", "CYX", "TYX", "TCYX", "ZCYX", "TZYX", "TZCYX"])
@pytest.mark.parametrize("kind", ["imagej", "ome"])
def test_hyperstacks_say_their_axes(tmp_path, kind, axes):
    data = pixels(*({"T": 2, "Z": 4, "C": 3, "Y": 9, "X": 13}[axis] for axis in axes))
    options = {kind: True, "metadata": {"axes": axes}, "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "a.tif", data, **options)
    check(tmp_path / "a.tif", data, axes)


@pytest.mark.parametrize("axes", ["CZYX", "CTYX", "CZTYX", "TCZYX", "ZTCYX"])
def test_ome_axes_in_any_order(tmp_path, axes):
    data = pixels(*({"T": 2, "Z": 4, "C": 3, "Y": 9, "X": 13}[axis] for axis in axes))
    options = {"ome": True, "metadata": {"axes": axes}, "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "a.ome.tif", data, **options)
    check(tmp_path / "a.ome.tif", data, axes)


@pytest.mark.parametrize("axes", ["ZYX", "CYX", "YXC", "XY", "SCYX", "SYX", "TSZCYX"])
def test_axes_that_the_writer_named(tmp_path, axes):
    data = pixels(*({"S": 5, "T": 2, "Z": 4, "C": 3, "Y": 9, "X": 13}[axis] for axis in axes))
    options = {"metadata": {"axes": axes}, "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "a.tif", data, **options)
    check(tmp_path / "a.tif", data, axes)


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colour_samples_are_channels(tmp_path, planar, dtype):
    data = pixels(9, 13, 3, dtype=dtype)
    if planar:
        data = np.ascontiguousarray(data.transpose(2, 0, 1))
    config = "separate" if planar else "contig"
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="rgb", planarconfig=config)
    check(tmp_path / "a.tif", data, "CYX" if planar else "YXC")


def test_colour_hyperstack(tmp_path):
    data = pixels(5, 9, 13, 3, dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", data, imagej=True, metadata={"axes": "ZYXS"})
    check(tmp_path / "a.tif", data, "ZYXC")


@pytest.mark.parametrize("kind", ["imagej", "ome"])
def test_channels_of_colours_are_not_taken_for_samples(tmp_path, kind):
    # channels and colours: two axes for one letter
    data = pixels(2, 9, 13, 3, dtype=np.uint8)
    options = {kind: True, "metadata": {"axes": "CYXS"}, "photometric": "rgb"}
    tifffile.imwrite(tmp_path / "a.tif", data, **options)
    with pytest.raises(
        ValueError, match=r"a\.tif has 2 channels of 3 colours.*\(2, 9, 13, 3\)"
    ) as e:
        ImageStack.from_tiff(tmp_path / "a.tif")
    for axes in ("SYXC", "TYXC"):  # what the message says helps
        assert repr(axes) in str(e.value)
        stack = ImageStack.from_tiff(tmp_path / "a.tif", axes)
        assert np.array_equal(stack.data, data.transpose(0, 3, 1, 2))


def test_first_series_is_read(tmp_path):
    first, second = pixels(9, 13), pixels(7, 5)
    tifffile.imwrite(tmp_path / "a.tif", first)
    tifffile.imwrite(tmp_path / "a.tif", second, append=True)
    check(tmp_path / "a.tif", first, "YX")


def test_unknown_axes_show_the_shape(tmp_path):
    data = pixels(5, 9, 13)
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="minisblack")
    for read in (ImageStack.from_tiff, read_image):
        with pytest.raises(ValueError, match=r"a\.tif.*\(5, 9, 13\).*axes.*'STCZYX'"):
            read(tmp_path / "a.tif")
    for axes in ("ZYX", "SYX", "CYX", "XYZ"):
        stack = ImageStack.from_tiff(tmp_path / "a.tif", axes)
        assert stack.original_axes == axes
        assert np.array_equal(stack.data, canonical(data, axes))
        assert read_image(tmp_path / "a.tif", axes)[1] == axes


def test_given_axes_come_before_those_of_the_file(tmp_path):
    data = pixels(5, 9, 13)
    tifffile.imwrite(tmp_path / "a.tif", data, imagej=True, metadata={"axes": "ZYX"})
    with pytest.warns(
        UserWarning, match=r"a\.tif: the file says.*are ZYX, but axes='TYX' is taken"
    ):
        stack = ImageStack.from_tiff(str(tmp_path / "a.tif"), "TYX", device="cpu")
    assert stack.data_shape == (5, 1, 9, 13)
    assert stack.metadata["source"] == str(tmp_path / "a.tif")
    assert np.array_equal(stack.data[:, 0], data)


@pytest.mark.parametrize(("mode", "dtype"), [("L", "u1"), ("I;16", "u2"), ("F", "f4"), ("1", "?")])
def test_files_written_by_pillow(tmp_path, mode, dtype):
    data = pixels(9, 13, dtype="bool" if dtype == "?" else dtype)
    picture = Image.fromarray(data)
    assert picture.mode == mode
    picture.save(tmp_path / "a.tif")
    check(tmp_path / "a.tif", data, "YX")


def test_colour_file_written_by_pillow(tmp_path):
    data = pixels(9, 13, 3, dtype=np.uint8)
    Image.fromarray(data).save(tmp_path / "a.tif")
    check(tmp_path / "a.tif", data, "YXC")


def test_pages_written_by_pillow_need_axes(tmp_path):
    pages = [pixels(9, 13, dtype=np.uint8), pixels(9, 13, dtype=np.uint8)[::-1]]
    first, second = map(Image.fromarray, pages)
    first.save(tmp_path / "a.tif", save_all=True, append_images=[second])
    with pytest.raises(ValueError, match=r"a\.tif.*\(2, 9, 13\).*axes"):
        ImageStack.from_tiff(tmp_path / "a.tif")
    assert np.array_equal(ImageStack.from_tiff(tmp_path / "a.tif", "SYX").data[:, 0], pages)


@pytest.mark.parametrize(
    "options",
    [{}, {"rowsperstrip": 4}, {"tile": (16, 16)}, {"compression": "zlib"}, {"imagej": True}],
    ids=str,
)
def test_truncated_file_is_never_read(tmp_path, options):
    data = pixels(33, 40, dtype=np.uint8)
    whole, path = tmp_path / "whole.tif", tmp_path / "cut.tif"
    tifffile.imwrite(whole, data, photometric="minisblack", **options)
    content = whole.read_bytes()
    for length in {*range(0, len(content), 97), *range(9), len(content) - 1}:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"cut\.tif cannot be read as a TIFF"):
            ImageStack.from_tiff(path, "YX")


def test_damaged_pixels_are_refused(tmp_path):
    path = tmp_path / "damaged.tif"
    tifffile.imwrite(path, pixels(20, 30), compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(path) as tiff:
        (start,), (length,) = tiff.pages[0].dataoffsets, tiff.pages[0].databytecounts
    content = path.read_bytes()
    for at in range(start, start + length, 29):  # the stream has a checksum
        damaged = bytearray(content)
        damaged[at] ^= 0x55
        path.write_bytes(bytes(damaged))
        with pytest.raises(ValueError, match=r"damaged\.tif cannot be read as a TIFF"):
            ImageStack.from_tiff(path)


def test_file_is_closed_after_reading(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels(9, 13))
    stack = ImageStack.from_tiff(path)
    path.write_bytes(b"something else")
    path.unlink()
    assert np.array_equal(stack.data[0, 0], pixels(9, 13))
