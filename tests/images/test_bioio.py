"""Formats by plugins of bioio: one for OME-TIFF, which needs no Java, under an ending of ours."""

from importlib.metadata import EntryPoint

import numpy as np
import pytest
from formats import numbered

from gpu_patch import open_images, predict
from gpu_patch.cli import main
from gpu_patch.images.readers import Options, bioio, open_file

tifffile = pytest.importorskip("tifffile")
package = pytest.importorskip("bioio")
plugin = pytest.importorskip("bioio_ome_tiff")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(autouse=True)
def _made(monkeypatch):
    """Let the plugin read files that end in .made, and do not look at what is in them."""
    from bioio import plugins

    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")
    plugins.get_plugins(use_cache=False)
    found = plugins.plugins_by_ext_cache.get(".tif") or plugins.plugins_by_ext_cache[".ome.tif"]
    monkeypatch.setitem(plugins.plugins_by_ext_cache, ".made", found)
    monkeypatch.setattr("gpu_patch.images.readers.content_of", lambda path: None)


def write(path, data, axes, **metadata):
    metadata = {"axes": axes, **metadata}
    tifffile.imwrite(path, data, ome=True, photometric="minisblack", metadata=metadata)


@pytest.mark.parametrize("axes", ["YX", "CYX", "TCZYX", "TZYX"])
@pytest.mark.parametrize("by_chunk", [False, True])
def test_any_region(tmp_path, axes, by_chunk):
    data = numbered(axes)
    units = {"PhysicalSizeX": 65.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.1,
             "TimeIncrement": 2.0, "TimeIncrementUnit": "min"}  # fmt: skip
    write(tmp_path / "a.made", data, axes, **units)
    (reader,) = open_file(tmp_path / "a.made", Options())
    assert (reader.info.format, reader.info.axes) == ("by bioio-ome-tiff", axes)
    assert reader.info.physical_sizes == pytest.approx({"Y": 0.1, "X": 0.065})
    assert reader.info.calibration.time_interval == 120.0
    key = tuple(slice(n // 3, n // 3 + max(1, n // 2)) for n in data.shape)
    assert np.array_equal(reader.select(key), data[key])
    reader.close()
    assert np.array_equal(reader.whole(), data)
    stack = open_images(tmp_path / "a.made", by_chunk=by_chunk).image_stacks[0]
    n_spatial = stack.data.ndim - 2
    patch = stack.extract_patch(0, None, (1,) * n_spatial, (2,) * n_spatial)
    first = data[0] if "T" in axes else data
    expected = first if "C" in axes else first[None]
    assert np.array_equal(patch, expected[(slice(None), *[slice(1, 3)] * n_spatial)])


def test_only_what_is_asked_for_is_read(tmp_path, monkeypatch):
    data = numbered("TCZYX")
    write(tmp_path / "a.made", data, "TCZYX")
    read = []
    get = plugin.Reader._get_image_data
    note = staticmethod(lambda *args, **kwargs: read.append(1) or get(*args, **kwargs))
    monkeypatch.setattr(plugin.Reader, "_get_image_data", note)
    (reader,) = open_file(tmp_path / "a.made", Options())
    assert reader.info.chunk_shape == (1, 1, 4, 37, 53)
    reader.select((slice(1, 2), slice(0, 1), slice(0, 4), slice(3, 9), slice(0, 53)))
    assert len(read) == 1


@pytest.mark.parametrize("n", [3, 4])
def test_colours(tmp_path, n):
    data = numbered("ZYXC", np.uint8, C=n)
    options = {} if n == 3 else {"extrasamples": ["unassalpha"]}
    tifffile.imwrite(tmp_path / "a.made", data, ome=True, photometric="rgb",
                     metadata={"axes": "ZYXS"}, **options)  # fmt: skip
    (reader,) = open_file(tmp_path / "a.made", Options())
    assert (reader.info.axes, reader.info.colours) == ("ZYXC", "RGB")
    assert np.array_equal(reader.whole(), data[..., :3])
    assert len(reader.info.remarks) == n - 3
    (reader,) = open_file(tmp_path / "a.made", Options(keep_alpha=True))
    assert np.array_equal(reader.whole(), data)


def test_scenes(tmp_path, capsys):
    first, second = numbered("CYX"), numbered("CYX", Y=64, X=64)
    with tifffile.TiffWriter(tmp_path / "a.made", ome=True) as file:
        for data in (first, second):
            file.write(data, photometric="minisblack", metadata={"axes": "CYX"})
    with pytest.raises(ValueError, match=r"a\.made has 2 scenes \(0 \(Image:0\), 1 \(Image:1\)\)"):
        open_images(tmp_path / "a.made")
    for by_chunk in (False, True):
        stack = open_images(tmp_path / "a.made", scene="Image:1", by_chunk=by_chunk).image_stacks[0]
        assert np.array_equal(stack.extract_patch(0, None, (0, 0), (64, 64)), second)
    with pytest.raises(ValueError, match=r"a\.made, scene 0 has no level 1: it has level 0 alone"):
        open_images(tmp_path / "a.made", scene=0, level=1)
    assert main(["info", str(tmp_path / "a.made")]) == 0
    assert "a.made, scene 1" in capsys.readouterr().out


def test_mosaics_levels_and_sizes_without_a_unit(tmp_path, monkeypatch):
    import dask.array as da
    import xarray as xr
    from bioio import plugins
    from bioio_base import reader, reader_metadata, types

    data = numbered("SCYX")

    class Made(reader.Reader):
        def __init__(self, image, **kwargs):
            self._path, self._fs = str(image), None

        @staticmethod
        def _is_supported_image(fs, path, **kwargs):
            return True

        @property
        def scenes(self):
            return ("a",)

        @property
        def resolution_levels(self):
            return (0, 1)

        @property
        def physical_pixel_sizes(self):
            return types.PhysicalPixelSizes(None, 0.5, 0.5)

        def _read_delayed(self):
            pixels = data[..., :: 1 + self.current_resolution_level]
            array = da.from_array(pixels, chunks=(1, 1, 20, -1))
            return xr.DataArray(array, dims=list("MCYX"), coords={"C": ["a", "b"]})

        _read_immediate = _read_delayed

    class Metadata(reader_metadata.ReaderMetadata):
        @staticmethod
        def get_supported_extensions():
            return [".mosaic"]

        @staticmethod
        def get_reader():
            return Made

    entry = plugins.PluginEntry(EntryPoint("made", "made", "bioio.readers"), Metadata)
    monkeypatch.setitem(plugins.plugins_by_ext_cache, ".mosaic", [entry])
    (tmp_path / "a.mosaic").write_bytes(b"any")
    with pytest.raises(ValueError, match=r"M \(tiles of a mosaic\).*axes='STCZYX' takes"):
        open_images(tmp_path / "a.mosaic")
    with pytest.warns(UserWarning, match="size of pixels without a unit: it is taken as microme"):
        stack = open_images(tmp_path / "a.mosaic", "STCZYX").image_stacks[0]
    assert stack.physical_sizes == {"Y": 0.5, "X": 0.5}
    assert np.array_equal(stack.data[:, :, 0], data)
    with pytest.warns(UserWarning, match="without a unit"):
        coarse = open_images(tmp_path / "a.mosaic", "STCZYX", level=1, by_chunk=True)
    found = coarse.extract_patch(0, 1, (0, 0, 0), (1, 37, 27))
    assert np.array_equal(found[:, 0], data[1, ..., ::2])


def test_prediction(tmp_path):
    data = numbered("CYX")
    write(tmp_path / "a.made", data, "CYX", PhysicalSizeX=0.2)
    images = open_images(tmp_path / "a.made", by_chunk=True)
    tiles = {"tile_size": (16, 16), "overlaps": (4, 4), "progress": False}
    predict(images, lambda patches: patches, out=tmp_path / "b.ome.tif", **tiles)
    stack = open_images(tmp_path / "b.ome.tif").image_stacks[0]
    assert np.array_equal(stack.data[0], data)
    assert stack.physical_sizes == {"X": 0.2}


def test_damaged_file(tmp_path):
    (tmp_path / "a.made").write_bytes(b"not a TIFF")
    with pytest.raises(ValueError, match=r"a\.made cannot be read as an image"):
        open_images(tmp_path / "a.made")


@pytest.mark.parametrize(
    ("name", "needed"),
    [
        ("a.dv", "bioio bioio-dv"),
        ("a.VSI", "bioio bioio-vsi"),
        ("a.oir", "which needs Java: .* bioio bioio-bioformats"),
    ],
)
@pytest.mark.parametrize("installed", [True, False])
def test_plugin_that_is_missing(tmp_path, monkeypatch, name, needed, installed):
    if not installed:
        monkeypatch.setattr(bioio, "find_spec", lambda name: None)
    (tmp_path / name).write_bytes(b"any")
    with pytest.raises(ImportError, match=rf"{name} needs bioio and a plugin of it.*{needed}"):
        open_images(tmp_path / name)
    (tmp_path / "a.xyz").write_bytes(b"any")
    with pytest.raises(ValueError, match=r"a\.xyz is of no known format .*install bioio and a pl"):
        open_images(tmp_path / "a.xyz")
