"""Axes: one rule for every format, what files say and what users give."""

import warnings

import lif_writer
import nd2_writer
import numpy as np
import pytest
from formats import canonical, numbered, write_ome_zarr

from gpu_patch import ImageStack, open_images

tifffile = pytest.importorskip("tifffile")
zarr = pytest.importorskip("zarr")


@pytest.fixture(autouse=True)
def _on_the_host(monkeypatch):
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")


def write_czi(path, data, axes):
    czi = pytest.importorskip("pylibCZIrw.czi")
    assert axes == "TCZYX"
    with czi.create_czi(str(path)) as file:
        for t, c, z in np.ndindex(data.shape[:3]):
            file.write(data[t, c, z], plane={"T": t, "C": c, "Z": z})


def write_tiff(kind):
    def write(path, data, axes):
        if kind == "imagej":
            data, axes = data.transpose(0, 2, 1, 3, 4), "TZCYX"
        options = {} if kind == "plain" else {kind: True}
        tifffile.imwrite(path, data, metadata={"axes": axes}, photometric="minisblack", **options)

    return write


def write_lif(path, data, axes):
    pytest.importorskip("liffile")
    lif_writer.write_lif(path, [lif_writer.image("a", data.transpose(0, 2, 1, 3, 4), "TZCYX")])


def write_nd2(path, data, axes):
    pytest.importorskip("nd2")
    t, c, z, y, x = data.shape
    frames = np.ascontiguousarray(data.transpose(0, 2, 3, 4, 1)).reshape(t * z, y, x, c)
    nd2_writer.write_nd2(path, frames, (nd2_writer.time_loop(t), nd2_writer.z_loop(z)))


WRITERS = {
    "a.ome.tif": write_tiff("ome"),
    "a.tif": write_tiff("plain"),
    "a.ij.tif": write_tiff("imagej"),
    "a.zarr": write_ome_zarr,
    "a.czi": write_czi,
    "a.lif": write_lif,
    "a.nd2": write_nd2,
}
Z_BEFORE_C = ("a.ij.tif", "a.lif", "a.nd2")
SINGLE = [{"Z": 1}, {"T": 1}, {"T": 1, "Z": 1}, {"T": 1, "C": 1, "Z": 1}]


@pytest.mark.parametrize("single", SINGLE, ids="".join)
@pytest.mark.parametrize("name", WRITERS)
def test_axes_of_one_pixel_are_left_out_unless_asked_for(tmp_path, name, single):
    data = numbered("TCZYX", **single)
    WRITERS[name](tmp_path / name, data, "TCZYX")
    kept = "".join(axis for axis in "TCZYX" if axis not in single)
    squeezed = data.reshape([n for n in data.shape if n > 1])
    for by_chunk in (False, True):
        stack = open_images(tmp_path / name, by_chunk=by_chunk).image_stacks[0]
        axes = stack.original_axes
        # some have an order of their own
        assert axes == "".join(
            axis for axis in ("TZCYX" if name in Z_BEFORE_C else kept) if axis in kept
        )
        size = dict(zip(kept, squeezed.shape, strict=True))
        assert stack.original_data_shape == tuple(size[axis] for axis in axes)
        expected = canonical(squeezed, kept)
        assert stack.data_shape == expected.shape
        found = stack.extract_patch(0, None, (0,) * (expected.ndim - 2), expected.shape[2:])
        assert np.array_equal(found, expected[0])
    # any of those that the file says may be named, in either case
    order = "TZCYX" if name in Z_BEFORE_C else "TCZYX"
    for named in {"TCZYX", "CZYX" if "T" in single else "TCZYX", kept}:
        given = "".join(axis for axis in order if axis in named)
        stack = open_images(tmp_path / name, given.lower()).image_stacks[0]
        assert stack.original_axes == given
        assert np.array_equal(stack.data, canonical(data, "TCZYX").reshape(stack.data_shape))
        assert (stack.data.ndim == 5) == ("Z" in given)


@pytest.mark.parametrize("name", WRITERS)
def test_axes_that_contradict_the_file_are_taken_with_a_warning(tmp_path, name):
    data = numbered("TCZYX", C=1, T=1, Z=4)
    WRITERS[name](tmp_path / name, data, "TCZYX")
    with pytest.warns(UserWarning, match=r"the file says.* are ZYX, but axes='TYX' is taken"):
        stack = open_images(tmp_path / name, "TYX").image_stacks[0]
    assert np.array_equal(stack.data, data[0].transpose(1, 0, 2, 3))
    given = "ZTCYX" if name in Z_BEFORE_C else "ZCTYX"
    with pytest.warns(UserWarning, match=rf"the file says.*T.*, but axes='{given}' is taken"):
        stack = open_images(tmp_path / name, given).image_stacks[0]
    assert stack.data_shape == (4, 1, 1, 37, 53)
    for wrong, words in (("CTYX", "'CTYX' has 4 letters.*file says axes='T"), ("YX", "2 letters")):
        with pytest.raises(ValueError, match=rf"{name}.*: axes must name every axis.*{words}"):
            open_images(tmp_path / name, wrong)


@pytest.mark.parametrize("name", ["a.ome.tif", "a.tif", "a.zarr", "a.czi", "a.lif", "a.nd2"])
@pytest.mark.parametrize("by_chunk", [False, True])
def test_stacks_of_one_slice_and_of_more(tmp_path, name, by_chunk):
    one, three = numbered("TCZYX", Z=1, T=1), numbered("TCZYX", Z=3, T=2)
    other = name.replace("a.", "b.")
    WRITERS[name](tmp_path / name, one, "TCZYX")
    WRITERS[name](tmp_path / other, three, "TCZYX")
    paths = [tmp_path / name, tmp_path / other]
    order = "ZCYX" if name in Z_BEFORE_C else "CZYX"
    words = rf"a\..*: it has one slice.*axes='{order}' says so"
    with pytest.warns(UserWarning, match=words) as said:
        found = open_images(paths, by_chunk=by_chunk)
    assert len(said) == 1
    assert found.shapes == [(1, 2, 1, 37, 53), (2, 2, 3, 37, 53)]
    patch = found.extract_patch(0, 0, (0, 4, 5), (1, 20, 21))
    assert np.array_equal(patch, one[0, :, :, 4:24, 5:26])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_images([paths[0]]).shapes == [(1, 2, 37, 53)]
        assert open_images(paths, f"T{order}").shapes == found.shapes


def test_slices_of_imagej_say_what_to_do(tmp_path):
    for name, n in (("a", 1), ("b", 3)):
        data = numbered("TCZYX", T=1, Z=n)
        write_tiff("imagej")(tmp_path / f"{name}.tif", data, "TCZYX")
    with pytest.raises(ValueError, match=r"must agree in spatial axes.* say axes='ZCYX', where"):
        open_images(tmp_path)
    assert open_images(tmp_path, "ZCYX").shapes == [(1, 2, 1, 37, 53), (1, 2, 3, 37, 53)]


def test_planes_without_slices_do_not_open_beside_stacks(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", numbered("YX"))
    write_tiff("ome")(tmp_path / "b.tif", numbered("TCZYX", T=1, C=1), "TCZYX")
    write_tiff("ome")(tmp_path / "c.tif", numbered("TCZYX", T=1, C=1, Z=1), "TCZYX")
    with pytest.raises(ValueError, match="must agree in spatial axes"):
        open_images(tmp_path)


def test_small_letters_for_arrays(tmp_path):
    data = numbered("CYX")
    for stack in (
        ImageStack.from_array(data, "cyx"),
        open_images(data, "cYx").image_stacks[0],
    ):
        assert stack.original_axes == "CYX"
        assert np.array_equal(stack.data[0], data)
    np.save(tmp_path / "a.npy", data[None])
    assert open_images(tmp_path / "a.npy", "zcyx").shapes == [(1, 2, 1, 37, 53)]


@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_single_channels_and_slices_of_colours(tmp_path, kind):
    data = numbered("YXC", np.uint8, C=3)
    options = {kind: True, "photometric": "rgb"}
    tifffile.imwrite(tmp_path / "a.tif", data[None], metadata={"axes": "ZYXS"}, **options)
    for given, shape in ((None, (37, 53)), ("ZYXC", (1, 37, 53)), ("TZYXC", (1, 37, 53))):
        stack = open_images(tmp_path / "a.tif", given).image_stacks[0]
        assert stack.original_axes == (given or "YXC")
        assert np.array_equal(stack.data, data.transpose(2, 0, 1).reshape(1, 3, *shape))


def test_planes_of_imagej_are_no_slices_beside_others(tmp_path):
    one = numbered("TCZYX", T=1, Z=1)
    write_tiff("ome")(tmp_path / "a.tif", one, "TCZYX")
    write_tiff("ome")(tmp_path / "b.tif", numbered("TCZYX", T=1), "TCZYX")
    write_tiff("imagej")(tmp_path / "c.tif", one, "TCZYX")
    with pytest.raises(ValueError, match=r"spatial axes: '.*a\.tif' has 3, '.*c\.tif' has 2"):
        open_images(tmp_path)
