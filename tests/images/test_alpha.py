"""Alpha channels are no structures: left out with a warning, kept where asked for."""

import warnings

import numpy as np
import pytest

from gpu_patch import ImageStack, open_images

tifffile = pytest.importorskip("tifffile")
Image = pytest.importorskip("PIL.Image")


@pytest.fixture(autouse=True)
def _on_the_host(monkeypatch):
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")


def pixels(n_channels, dtype=np.uint8):
    """Pixels that differ, in the alpha channel too."""
    values = np.arange(23 * 35 * n_channels).reshape(23, 35, n_channels) * 131
    return (values % (np.iinfo(dtype).max + 1)).astype(dtype)


def opened(path, **options):
    """The image (C, Y, X), its colours and what its user was told."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        stack = open_images(path, **options).image_stacks[0]
    return stack.data[0], stack.colours, [str(warning.message) for warning in said]


def check(path, expected, n_colours, colours):
    """Without its alpha channel, and with it."""
    found, name, said = opened(path)
    assert np.array_equal(found, expected[:n_colours])
    assert found.dtype == expected.dtype
    assert name == colours
    assert said == [f"{path}: an alpha channel is left out: keep_alpha=True keeps it"]
    found, name, said = opened(path, keep_alpha=True)
    assert np.array_equal(found, expected)
    assert name == (f"{colours}A" if colours else "")
    assert not said


LAYOUTS = [{}, {"tile": (16, 16)}, {"compression": "zlib"}, {"rowsperstrip": 5}]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("kind", ["assocalpha", "unassalpha"])
@pytest.mark.parametrize(("n_colours", "photometric"), [(3, "rgb"), (1, "minisblack")])
def test_alpha_of_a_tiff(tmp_path, layout, planar, kind, n_colours, photometric):
    data = pixels(n_colours + 1, np.uint16)
    stored = data if planar == "contig" else data.transpose(2, 0, 1).copy()
    tifffile.imwrite(
        tmp_path / "a.tif", stored, photometric=photometric, planarconfig=planar,
        extrasamples=[kind], **layout,
    )  # fmt: skip
    check(tmp_path / "a.tif", data.transpose(2, 0, 1), n_colours, "RGB" if n_colours == 3 else "")


def test_other_extra_samples_are_channels(tmp_path):
    data = pixels(5)
    kinds = ["unspecified", "unassalpha", "unspecified"]
    tifffile.imwrite(
        tmp_path / "a.tif", data[..., [0, 1, 2, 3, 4]], photometric="minisblack",
        planarconfig="contig", extrasamples=["unspecified", *kinds],
    )  # fmt: skip
    found, colours, said = opened(tmp_path / "a.tif")
    assert np.array_equal(found, data.transpose(2, 0, 1)[[0, 1, 2, 4]])
    assert colours == ""
    assert len(said) == 1
    tifffile.imwrite(
        tmp_path / "b.tif", data[..., :4], photometric="rgb", extrasamples=["unspecified"]
    )
    found, colours, said = opened(tmp_path / "b.tif")
    assert np.array_equal(found, data[..., :4].transpose(2, 0, 1))
    assert (colours, said) == ("", [])


@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_alpha_of_a_stack(tmp_path, kind):
    data = np.stack([pixels(4), pixels(4)[::-1]])
    metadata = {"axes": "ZYXS"}
    tifffile.imwrite(
        tmp_path / "a.tif", data, photometric="rgb", metadata=metadata,
        **{kind: True, "extrasamples": ["unassalpha"]},
    )  # fmt: skip
    check(tmp_path / "a.tif", data.transpose(3, 0, 1, 2), 3, "RGB")


def test_alpha_by_chunk(tmp_path):
    data = pixels(4)
    tifffile.imwrite(tmp_path / "a.tif", data, tile=(16, 16), photometric="rgb")
    with pytest.warns(UserWarning, match="alpha"):
        stack = open_images(tmp_path / "a.tif", by_chunk=True).image_stacks[0]
    patch = stack.extract_patch(0, None, (5, 9), (17, 20))
    assert np.array_equal(patch, data[5:22, 9:29, :3].transpose(2, 0, 1))


@pytest.mark.parametrize(("n_channels", "colours"), [(2, ""), (4, "RGB")])
def test_alpha_of_a_png(tmp_path, n_channels, colours):
    data = pixels(n_channels)
    Image.fromarray(data).save(tmp_path / "a.png")
    check(tmp_path / "a.png", data.transpose(2, 0, 1), n_channels - 1, colours)


@pytest.mark.parametrize("n_channels", [1, 3])
def test_colour_that_means_transparent(tmp_path, n_channels):
    data = pixels(n_channels)
    key = tuple(map(int, data[2, 3])) if n_channels == 3 else int(data[2, 3, 0])
    Image.fromarray(data.squeeze()).save(tmp_path / "a.png", transparency=key)
    alpha = 255 - 255 * (data == data[2, 3]).all(-1, keepdims=True).astype(np.uint8)
    expected = np.concatenate([data, alpha], axis=-1).transpose(2, 0, 1)
    check(tmp_path / "a.png", expected, n_channels, "RGB" if n_channels == 3 else "")


def palette(colours, **options):
    picture = Image.fromarray(pixels(1)[..., 0] % len(colours))
    picture.putpalette(np.array(colours, np.uint8).ravel().tolist())
    return picture


@pytest.mark.parametrize("grey", [True, False])
def test_palette(tmp_path, grey):
    colours = np.array([[0, 0, 0], [255, 255, 255], [9, 9, 9], [7, 7, 7]], np.uint8)
    if not grey:
        colours[2] = 9, 8, 7
    picture = palette(colours)
    indices = np.asarray(picture)
    picture.save(tmp_path / "a.png")
    expected = colours[indices].transpose(2, 0, 1)
    found, name, said = opened(tmp_path / "a.png")
    assert np.array_equal(found, expected[:1] if grey else expected)
    assert (name, said) == ("" if grey else "RGB", [])
    picture.save(tmp_path / "b.png", transparency=bytes([255, 100, 0, 200]))
    alpha = np.array([255, 100, 0, 200], np.uint8)[indices][None]
    expected = np.concatenate([expected[:1] if grey else expected, alpha])
    check(tmp_path / "b.png", expected, 1 if grey else 3, "" if grey else "RGB")


def test_palette_of_a_tiff_is_remarked_on_unless_it_is_for_display(tmp_path):
    colours = np.array([[0, 0, 0], [255, 0, 0], [9, 9, 9], [7, 7, 7]], np.uint8)
    palette(colours).save(tmp_path / "a.tif")
    found, _, said = opened(tmp_path / "a.tif")
    assert np.array_equal(found[0], pixels(1)[..., 0] % 4)
    assert len(said) == 1
    assert "a.tif: its pixels are numbers of colours in a palette" in said[0]
    table = (np.arange(256)[::-1] * np.ones((3, 1)) * 257).astype(np.uint16)
    for kind in ("imagej", "ome"):
        tifffile.imwrite(tmp_path / "b.tif", pixels(1)[..., 0], colormap=table, **{kind: True})
        assert opened(tmp_path / "b.tif")[2] == []


def test_one_warning_for_many_files(tmp_path):
    for name in "abc":
        Image.fromarray(pixels(4)).save(tmp_path / f"{name}.png")
    with pytest.warns(UserWarning, match=r"a\.png and 2 more: an alpha channel is left") as said:
        open_images(tmp_path)
    assert len(said) == 1


def test_from_tiff(tmp_path):
    data = pixels(4)
    tifffile.imwrite(tmp_path / "a.tif", data, photometric="rgb")
    with pytest.warns(UserWarning, match=r"a\.tif: an alpha channel is left out") as said:
        assert ImageStack.from_tiff(tmp_path / "a.tif").data_shape == (1, 3, 23, 35)
    assert said[0].filename == __file__
    stack = ImageStack.from_tiff(tmp_path / "a.tif", keep_alpha=True)
    assert np.array_equal(stack.data[0], data.transpose(2, 0, 1))
