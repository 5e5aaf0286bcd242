"""What is written comes back: the same pixels, in the image's own axes, with its pixel sizes."""

import sys

import numpy as np
import pytest
from formats import canonical
from written import SIZES, make_predicted, make_store, pixels, whole, write_all

from gpu_patch import open_images
from gpu_patch.images.axes import to_canonical
from gpu_patch.predict.outputs import restore, restored_axes
from gpu_patch.predict.outputs.names import result_names

pytest.importorskip("tifffile")
pytest.importorskip("zarr")

AXES = ["YX", "XY", "CYX", "YXC", "SYX", "TYX", "TYXS", "STCYX", "ZYX", "YXZ", "CZYX", "TZYX",
        "TZCYX", "SZYX", "STCZYX", "ZYXTSC"]  # fmt: skip
FORMATS = ["ome-zarr", "ome-tiff", "npy"]


@pytest.fixture(autouse=True)
def _on_the_host(monkeypatch):
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")


def kept_channels(axes, n_channels):
    return n_channels if "C" in axes or n_channels > 1 else 1


def described(axes, n_channels, slab_axis):
    ndim = 3 if "Z" in axes else 2
    return make_predicted(axes, n_channels=n_channels, slab_axis=min(slab_axis, ndim - 1))


@pytest.mark.parametrize("slab_axis", [0, 1, 2])
@pytest.mark.parametrize("n_channels", [1, 2])
@pytest.mark.parametrize("axes", AXES)
def test_arrays_have_the_axes_of_the_image(axes, n_channels, slab_axis):
    predicted = described(axes, n_channels, slab_axis)
    found = write_all(make_store(None, ["a.tif"]), predicted)
    own = restored_axes(axes, n_channels)
    assert own.replace("C", "") == axes.replace("C", "")
    for axis, length in zip(axes, predicted.original_shape, strict=True):
        assert axis == "C" or found.shape[own.index(axis)] == length
    assert np.array_equal(canonical(found, own), whole(predicted))


@pytest.mark.parametrize(
    ("axes", "n_channels", "expected"),
    [("YX", 1, "YX"), ("YX", 3, "CYX"), ("TYX", 2, "TCYX"), ("XZY", 2, "CXZY"), ("YXC", 1, "YXC"),
     ("YXC", 5, "YXC"), ("ZTYX", 2, "CZTYX")],
)  # fmt: skip
def test_axes_of_a_prediction(axes, n_channels, expected):
    assert restored_axes(axes, n_channels) == expected


@pytest.mark.parametrize("axes", AXES)
def test_restoring_undoes_what_reading_does(axes):
    predicted = make_predicted(axes, n_channels=2)
    own = np.random.default_rng(0).random(predicted.original_shape)
    read = np.ascontiguousarray(to_canonical(own, axes))
    found = restore(read, axes, own.shape)
    assert np.shares_memory(found, read)
    assert np.array_equal(found, own)


def test_restoring_counts_samples():
    with pytest.raises(ValueError, match=r"\(5, 1, 4, 4\) has 5 samples.*\(2, 4, 4\).*has 2"):
        restore(np.zeros((5, 1, 4, 4)), "TYX", (2, 4, 4))


@pytest.mark.parametrize("slab_axis", [0, 1, 2])
@pytest.mark.parametrize("n_channels", [1, 2])
@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("format", FORMATS)
def test_files_come_back(tmp_path, format, axes, n_channels, slab_axis):
    predicted = described(axes, n_channels, slab_axis)
    path = write_all(make_store(tmp_path, ["a.tif"], format=format), predicted)
    own = restored_axes(axes, n_channels)
    (found,) = open_images(path, own if format == "npy" else None).image_stacks
    assert np.array_equal(found.data, whole(predicted))
    if format == "npy":
        assert (
            np.load(path).shape == restore(whole(predicted), axes, predicted.original_shape).shape
        )
    else:
        assert found.physical_sizes == pytest.approx({a: SIZES[a] for a in "ZYX" if a in axes})
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float16", "float32"])
def test_data_types_come_back(tmp_path, format, dtype):
    predicted = make_predicted("CYX", n_channels=2, dtype=dtype)
    store = make_store(tmp_path, ["a"], format=format)
    if format == "ome-tiff" and dtype == "float16":
        with pytest.raises(ValueError, match="OME-TIFF has no float16, only uint8"):
            store.open(predicted)
        store.abandon()
        assert not list(tmp_path.iterdir())
        return
    found = open_images(write_all(store, predicted), "CYX").image_stacks[0].data
    assert found.dtype == predicted.dtype
    assert np.array_equal(found, whole(predicted))


@pytest.mark.parametrize("format", FORMATS)
def test_nothing_but_zeros_is_written_too(tmp_path, format):
    predicted = make_predicted("YX", sizes={})
    output = make_store(tmp_path, ["a"], format=format).open(predicted)
    output.write(0, 0, np.zeros(predicted.shape[1:], np.float32))
    (found,) = open_images(output.finish(), "YX").image_stacks  # a missing chunk is an error
    assert found.data.shape == predicted.shape
    assert not found.data.any()
    assert found.physical_sizes == {}


@pytest.mark.parametrize("format", [None, *FORMATS])
def test_rows_belong_to_the_caller(tmp_path, format):
    """Rows are overwritten after each call, as buffers that are used again are."""
    predicted = make_predicted("CYX", n_channels=2)
    store = make_store(format and tmp_path, ["a"], format=format)
    output = store.open(predicted)
    for start in range(0, 37, 10):
        rows = pixels(predicted, 0, start, start + 10)
        output.write(0, start, rows)
        rows[...] = -1
    found = output.finish()
    data = found if format is None else open_images(found, "CYX").image_stacks[0].data[0]
    assert np.array_equal(data, pixels(predicted, 0))


@pytest.mark.parametrize("out", ["p.npy", "p.ome.tif", "p.TIFF", "p.ome.zarr", "p.zarr"])
def test_a_path_for_one_image(tmp_path, out):
    store = make_store(tmp_path / "deep" / out, ["x/image.tif"], variants=["", "_std"])
    assert store.names == ("p",)
    for variant in ("", "_std"):
        predicted = make_predicted("YX", name=store.names[0] + variant)
        path = write_all(store, predicted)
        assert path == tmp_path / "deep" / out.replace("p.", f"p{variant}.")
        assert np.array_equal(open_images(path, "YX").image_stacks[0].data, whole(predicted))


def test_a_folder_for_several(tmp_path):
    store = make_store(tmp_path / "out", ["a/x.ome.tif", "b/x.npy", "y.czi, scene 2"])
    assert store.names == ("x", "x_1", "y_scene_2")
    paths = [write_all(store, make_predicted("YX", name=name)) for name in store.names]
    assert [path.name for path in paths] == ["x.ome.zarr", "x_1.ome.zarr", "y_scene_2.ome.zarr"]
    assert len(open_images(tmp_path / "out").image_stacks) == 3


def test_names_and_variants_differ():
    assert result_names(["a_std", "a", "A"], ["", "_std"]) == ["a_std", "a_1", "A_2"]
    assert result_names(["a", "a_std"], ["", "_std"]) == ["a", "a_std_1"]
    assert result_names([".tif", "x/", "array"], [""]) == [*("tif", "x", "array")]


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_there_stays(tmp_path, format):
    old, new = make_predicted("YX"), make_predicted("YX", dtype="uint8")
    path = write_all(make_store(tmp_path, ["a"], format=format), old)
    with pytest.raises(FileExistsError, match=f"{path.name} exists: overwrite=True replaces it"):
        make_store(tmp_path, ["a"], format=format)
    store = make_store(tmp_path, ["a"], format=format, overwrite=True)
    output = store.open(new)
    output.write(0, 0, pixels(new, 0, 0, 10))
    assert np.array_equal(open_images(path, "YX").image_stacks[0].data, whole(old))
    output.write(0, 10, pixels(new, 0, 10))
    output.finish()
    assert np.array_equal(open_images(path, "YX").image_stacks[0].data, whole(new))
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("format", FORMATS)
def test_an_error_leaves_nothing_at_the_name(tmp_path, format):
    predicted = make_predicted("YX")
    store = make_store(tmp_path, ["a"], format=format)
    output = store.open(predicted)
    output.write(0, 0, pixels(predicted, 0, 0, 10))
    assert not store.path("a").exists()
    output.close()
    assert not [entry for entry in tmp_path.iterdir() if not entry.name.startswith(".")]
    # and the next run begins anew: no unit was complete
    write_all(make_store(tmp_path, ["a"], format=format), predicted)
    assert [entry.name for entry in tmp_path.iterdir()] == [store.path("a").name]


def test_an_image_does_not_replace_itself(tmp_path):
    path = write_all(make_store(tmp_path, ["a"], format="npy"), make_predicted("YX"))
    with pytest.raises(ValueError, match="out would replace the image"):
        make_store(tmp_path, [path], format="npy", overwrite=True)


@pytest.mark.parametrize(
    ("out", "options", "message"),
    [
        (None, {"resume": True}, "resume=True is for the format 'ome-zarr' alone, not for arrays"),
        (None, {"world_size": 2}, "world_size=2 is for the format 'ome-zarr' alone"),
        (None, {"format": "npy"}, "format 'npy' needs out"),
        ("a.npy", {"resume": True}, "resume=True .* 'ome-zarr' alone, not for npy"),
        ("a.tif", {"resume": True}, "resume=True .* 'ome-zarr' alone, not for ome-tiff"),
        ("a.tif", {"world_size": 3}, "world_size=3 .* 'ome-zarr' alone, not for ome-tiff"),
        ("a.tif", {"chunk_size": (8, 8)}, "chunk_size is for the format 'ome-zarr' alone"),
        ("a.tif", {"format": "npy"}, r"format is 'npy', but out '.*a\.tif' means 'ome-tiff'"),
        ("out", {"format": "hdf5"}, "format must be one of 'ome-zarr', 'ome-tiff', 'npy', found"),
        ("out", {"rank": 2, "world_size": 2}, "rank must be .* at most 1, found 2"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_made(tmp_path, out, options, message):
    with pytest.raises(ValueError, match=message):
        make_store(out and tmp_path / out, ["a"], **options)
    assert not list(tmp_path.iterdir())


def test_one_name_for_two_images(tmp_path):
    with pytest.raises(ValueError, match=r"out must be a folder for 2 images, found '.*p\.npy'"):
        make_store(tmp_path / "p.npy", ["a", "b"])


@pytest.mark.parametrize(("package", "out"), [("tifffile", "a.tif"), ("zarr", "a.zarr")])
def test_a_missing_package_is_named(tmp_path, monkeypatch, package, out):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"needs {package}.*pip install 'gpu_patch\[io\]'"):
        make_store(tmp_path / out, ["a"])


def test_a_full_disk_is_an_error_at_once(tmp_path, monkeypatch):
    def allocate(descriptor, offset, length):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", allocate, raising=False)
    store = make_store(tmp_path / "a.npy", ["a"])
    with pytest.raises(OSError, match="No space left"):
        store.open(make_predicted("YX"))
    store.abandon()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("axes", ["YX", "CYX", "TZYX", "STCZYX"])
def test_tifffile_reads_ome_tiff(tmp_path, axes):
    import tifffile

    predicted = make_predicted(axes, n_channels=3)
    path = write_all(make_store(tmp_path / "a.ome.tif", ["a"]), predicted)
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_ome
        assert len(tiff.series) == 1
        assert np.array_equal(canonical(tiff.asarray(), tiff.series[0].axes), whole(predicted))
        assert 'PhysicalSizeX="0.125" PhysicalSizeXUnit="µm"' in tiff.ome_metadata


def test_ome_types_reads_ome_tiff(tmp_path):
    ome_types = pytest.importorskip("ome_types", reason="the package ome-types is not installed")
    path = write_all(make_store(tmp_path / "a.ome.tif", ["a"]), make_predicted("TCZYX"))
    (image,) = ome_types.from_tiff(path).images
    size = [getattr(image.pixels, f"size_{axis}") for axis in "tczyx"]
    assert size == [3, 1, 5, 37, 53]
    assert [getattr(image.pixels, f"physical_size_{axis}") for axis in "zyx"] == [0.5, 0.25, 0.125]
    assert image.pixels.physical_size_x_unit.value == "µm"
    assert image.name == "a"
