"""PNG and JPEG files, made by Pillow, by hand, and the real ones that scikit-image ships."""

import contextlib
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from whole import read_image

from gpu_patch import ImageStack

Image = pytest.importorskip("PIL.Image")


@pytest.fixture(autouse=True)
def on_the_host(monkeypatch):
    """What these tests prove is the same everywhere; images stay where NumPy can look at them."""
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")


def pixels(*shape, dtype=np.uint8):
    values = np.arange(np.prod(shape)).reshape(shape) * 131
    return (values % (np.iinfo(dtype).max + 1)).astype(dtype)


def png_of_16_bits(data):
    """A PNG file of 16 bits per value, as Pillow cannot write it."""
    colour_type = {2: {}, 3: {2: 4, 3: 2, 4: 6}}[data.ndim].get(data.shape[-1], 0)
    height, width = data.shape[:2]

    def chunk(name, content):
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in data)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("shape", [(9, 13), (9, 13, 3)])
def test_png_of_8_bits(tmp_path, shape):
    data = pixels(*shape)
    Image.fromarray(data).save(tmp_path / "a.PNG")
    found, axes = read_image(tmp_path / "a.PNG")
    assert axes == "YXC"[: len(shape)]
    assert found.dtype == np.uint8
    assert np.array_equal(found, data)


def test_png_of_16_bits(tmp_path):
    data = pixels(9, 13, dtype=np.uint16)
    Image.fromarray(data).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(png_of_16_bits(data))
    for name in ("a.png", "b.png"):
        found, axes = read_image(tmp_path / name)
        assert axes == "YX"
        assert found.dtype == np.uint16
        assert np.array_equal(found, data)


@pytest.mark.parametrize("n_channels", [2, 3, 4])
def test_png_of_16_bits_and_colours_keeps_them_or_is_refused(tmp_path, n_channels):
    # Pillow alone gives the upper 8 bits without a word
    data = pixels(9, 13, n_channels, dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(png_of_16_bits(data))
    with contextlib.suppress(ValueError):
        found, axes = read_image(tmp_path / "a.png")
        assert axes == "YXC"
        assert found.dtype == np.uint16
        assert np.array_equal(found, data)


def test_png_of_bits(tmp_path):
    data = pixels(9, 13) % 3 == 0
    Image.fromarray(data).save(tmp_path / "a.png")
    found, axes = read_image(tmp_path / "a.png")
    assert axes == "YX"
    assert found.dtype == bool
    assert np.array_equal(found, data)


def palette_picture():
    indices = pixels(9, 13) % 4
    colours = np.array([[0, 0, 0], [255, 0, 0], [10, 20, 30], [1, 2, 3]], np.uint8)
    picture = Image.fromarray(indices)
    picture.putpalette(colours.ravel().tolist())
    assert picture.mode == "P"
    return picture, colours[indices]


def test_palette_becomes_colours(tmp_path):
    picture, expected = palette_picture()
    picture.save(tmp_path / "a.png")
    found, axes = read_image(tmp_path / "a.png")
    assert axes == "YXC"
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("transparency", [2, bytes([255, 100, 0, 255])])
def test_palette_with_transparency(tmp_path, transparency):
    picture, expected = palette_picture()
    picture.save(tmp_path / "a.png", transparency=transparency)
    with pytest.warns(UserWarning, match=r"a\.png: an alpha channel is left out"):
        found, axes = read_image(tmp_path / "a.png")
    assert axes == "YXC"
    assert np.array_equal(found, expected)
    found, axes = read_image(tmp_path / "a.png", keep_alpha=True)
    assert (found.shape, axes) == ((9, 13, 4), "YXC")
    assert np.array_equal(found[..., :3], expected)


@pytest.mark.parametrize("shape", [(16, 24), (16, 24, 3)])
def test_jpeg(tmp_path, shape):
    smooth = np.linspace(20, 220, np.prod(shape)).reshape(shape).astype(np.uint8)
    for name in ("a.jpg", "a.JPEG"):
        Image.fromarray(smooth).save(tmp_path / name, quality=100, subsampling=0)
        found, axes = read_image(str(tmp_path / name))
        assert axes == "YXC"[: len(shape)]
        assert found.dtype == np.uint8
        assert np.abs(found.astype(int) - smooth).max() <= 6


def test_given_axes_are_taken(tmp_path):
    Image.fromarray(pixels(9, 13, 3)).save(tmp_path / "a.png")
    with pytest.warns(
        UserWarning, match=r"a\.png: the file says.*are YXC, but axes='YXZ' is taken"
    ):
        assert read_image(tmp_path / "a.png", "YXZ")[1] == "YXZ"


@pytest.mark.parametrize("name", ["cut.png", "cut.jpg"])
def test_truncated_picture_names_the_file(tmp_path, name):
    rng = np.random.default_rng(0)
    path = tmp_path / name
    Image.fromarray(rng.integers(0, 255, (40, 50, 3)).astype(np.uint8)).save(path)
    content = path.read_bytes()
    for length in range(0, len(content) - 40, 61):
        path.write_bytes(content[:length])
        with pytest.raises((ValueError, OSError), match=name):
            read_image(path)


SHIPPED = {
    "astronaut.png": ((512, 512, 3), "YXC"),
    "brick.png": ((512, 512), "YX"),
    "camera.png": ((512, 512), "YX"),
    "cell.png": ((660, 550), "YX"),
    "coins.png": ((303, 384), "YX"),
    "hubble_deep_field.jpg": ((872, 1000, 3), "YXC"),
    "ihc.png": ((512, 512, 3), "YXC"),
    "microaneurysms.png": ((102, 102), "YX"),
    "moon.png": ((512, 512), "YX"),
    "multipage.tif": ((2, 15, 10), None),
    "multipage_rgb.tif": ((2, 3, 10, 10), None),
    "retina.jpg": ((1411, 1411, 3), "YXC"),
}


@pytest.mark.parametrize(("name", "shape", "axes"), [(n, *v) for n, v in SHIPPED.items()])
def test_real_pictures(name, shape, axes):
    skimage = pytest.importorskip("skimage")
    path = Path(skimage.__file__).parent / "data" / name
    if not path.exists():
        pytest.skip(f"this scikit-image does not ship {name}")
    if axes is None:
        with pytest.raises(ValueError, match="does not say its axes"):
            read_image(path)
        axes = "SCYX"[-len(shape) :] if len(shape) == 4 else "SYX"
    data, found = read_image(path, axes)
    assert read_image(path, axes)[1] == found == axes
    assert data.shape == shape
    assert data.dtype == (np.float64 if name == "multipage_rgb.tif" else np.uint8)
    assert len(np.unique(data)) > 30
    stack = ImageStack.from_array(data, axes)
    start = (stack.data_shape[-2] // 2, stack.data_shape[-1] // 3)
    patch = stack.extract_patch(0, None, start, (4, 5))
    middle = (slice(start[0], start[0] + 4), slice(start[1], start[1] + 5))
    expected = data[middle].transpose(2, 0, 1) if axes == "YXC" else data[(..., *middle)]
    expected = expected[0] if "S" in axes else expected
    assert np.array_equal(patch, expected.reshape(patch.shape).astype(np.float32))
