"""A result never replaces the image that it is made of, nor goes into its folder; and what cannot
be replaced is known before the model runs."""

from __future__ import annotations

import os

import numpy as np
import pytest
from pixels import distinct
from written import make_store

from gpu_patch import ImageStack, open_images, predict

tifffile = pytest.importorskip("tifffile")
zarr = pytest.importorskip("zarr")

PIXELS = distinct((40, 50), "uint16")
AXES = [{"name": "y", "type": "space"}, {"name": "x", "type": "space"}]


@pytest.fixture(autouse=True)
def _on_the_host(monkeypatch):
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")


def pyramid(group):
    """Two levels in a group."""
    for level in range(2):
        group.create_array(str(level), data=PIXELS[:: 1 + level, :: 1 + level])
    scales = [
        {"path": str(i), "coordinateTransformations": [{"type": "scale", "scale": [2.0**i] * 2}]}
        for i in range(2)
    ]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": AXES, "datasets": scales}]}


@pytest.fixture
def images(tmp_path):
    """A pyramid, a plate, a file of two scenes, one in two files, an array."""
    pyramid(zarr.create_group(tmp_path / "a.ome.zarr"))
    plate = zarr.create_group(tmp_path / "plate.zarr")
    for field in ("A/1/0", "A/1/1"):
        pyramid(plate.create_group(field))
    with tifffile.TiffWriter(tmp_path / "s.tif") as file:
        for x in (50, 40):
            file.write(PIXELS[:, :x], metadata={"axes": "YX"})
    blocks = "".join(
        f'<TiffData FirstT="{t}" IFD="0" PlaneCount="1"><UUID FileName="t{t}.ome.tif">urn:uuid:{t}'
        "</UUID></TiffData>"
        for t in range(2)
    )
    for t in range(2):
        description = (
            '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:{t}"><Image ID="Image:0"><Pixels ID="Pixels:0" Type="uint16" '
            'DimensionOrder="XYCZT" SizeX="50" SizeY="40" SizeC="1" SizeZ="1" SizeT="2">'
            f"{blocks}</Pixels></Image></OME>"
        )
        path = tmp_path / f"t{t}.ome.tif"
        tifffile.imwrite(path, PIXELS + t, description=description, metadata=None)
    np.save(tmp_path / "b.npy", PIXELS)
    return tmp_path


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }


def refused(images, out, words, **options):
    """Nothing is asked of the model, made or changed."""
    tree = images.image_stacks[0].files[0].parents[0]
    while tree.name and not (tree / "b.npy").exists():
        tree = tree.parent
    before = contents(tree), sorted(tree.rglob("*"))

    def model(x):
        raise AssertionError("the model was asked")

    with pytest.raises((ValueError, FileExistsError), match=words):
        predict(images, model, tile_size=(32, 32), overlaps=(0, 0), out=out, overwrite=True,
                progress=False, **options)  # fmt: skip
    assert (contents(tree), sorted(tree.rglob("*"))) == before


OPENED = {
    "a level": ("a.ome.zarr", {"level": 1}, "a.ome.zarr"),
    "an array of a pyramid": ("a.ome.zarr/1", {"axes": "YX"}, "a.ome.zarr"),
    "a field": ("plate.zarr/A/1/1", {}, "plate.zarr"),
    "itself": ("plate.zarr/A/1/1", {}, "plate.zarr/A/1/1.zarr"),
    "a scene": ("s.tif", {"scene": 1}, "s.tif"),
    "another file of its set": ("t0.ome.tif", {}, "t1.ome.tif"),
    "an array file": ("b.npy", {"axes": "YX"}, "b.npy"),
    "an array file by a function": ("b.npy", {"axes": "YX", "read_func": np.load}, "b.npy"),
}


@pytest.mark.parametrize("by_chunk", [False, True])
@pytest.mark.parametrize("kind", OPENED)
def test_an_image_is_not_replaced(images, kind, by_chunk, monkeypatch):
    opened, options, out = OPENED[kind]
    if kind == "itself":
        (images / opened).rename(images / out)
        opened = out
    monkeypatch.chdir(images)
    found = open_images(opened, progress=False, by_chunk=by_chunk, **options)
    monkeypatch.chdir("/")  # paths were relative to another folder
    refused(found, images / out, rf"out would replace the image .*, at .*{out}")


@pytest.mark.parametrize("link", ["symlink", "hard link", "folder"])
@pytest.mark.parametrize("opened", ["link", "real"])
def test_links_to_an_image_are_the_image(images, link, opened):
    (images / "elsewhere").mkdir()
    if link == "folder":
        real, other = images / "a.ome.zarr", images / "elsewhere" / "a.ome.zarr"
        (images / "elsewhere").rmdir()
        (images / "elsewhere").symlink_to(images)
    elif link == "symlink":
        real, other = images / "a.ome.zarr", images / "elsewhere" / "l.zarr"
        other.symlink_to(real)
    else:
        real, other = images / "s.tif", images / "elsewhere" / "l.tif"
        os.link(real, other)
    path, out = (other, real) if opened == "link" else (real, other)
    options = {"scene": 0} if link == "hard link" else {}
    refused(open_images(path, progress=False, **options), out, "out would replace the image")


@pytest.mark.parametrize("out", ["a.ome.zarr/0/p.zarr", "a.ome.zarr/p.tif", "a.ome.zarr/labels/p",
                                 "linked/p.npy"])  # fmt: skip
@pytest.mark.parametrize("level", [0, 1])
def test_nothing_goes_into_the_folder_of_an_image(images, out, level):
    (images / "linked").symlink_to(images / "a.ome.zarr" / "0")
    found = open_images(images / "a.ome.zarr", level=level, progress=False)
    refused(found, images / out, r"would put the prediction .* inside of the image .*a\.ome\.zarr")


def test_an_image_in_a_folder_with_the_name_of_a_result(images):
    """Not Zarr at all, but overwriting it would take the image along."""
    (images / "results.zarr").mkdir()
    (images / "b.npy").rename(images / "results.zarr" / "b.npy")
    (images / "b.npy").touch()
    found = open_images(images / "results.zarr" / "b.npy", "YX", progress=False)
    refused(found, images / "results.zarr", r"replace the image .*b\.npy by its prediction")


def test_arrays_that_are_in_files_are_images_too(images):
    mapped = np.load(images / "b.npy", mmap_mode="r")
    stack = ImageStack.from_array(mapped.astype(np.float32), "YX")
    for image in (open_images(mapped, "YX"), open_images(mapped[3:], "YX")):
        refused(image, images / "b.npy", "out would replace the image")
    inner = zarr.open_array(images / "a.ome.zarr" / "1")
    refused(open_images(inner, "YX"), images / "a.ome.zarr", "out would replace the image")
    assert stack.files == ()  # a copy


def test_what_is_beside_an_image_may_be_replaced(images):
    found = open_images(images / "a.ome.zarr", level=1, progress=False)
    options = {"tile_size": (32, 32), "overlaps": (0, 0), "overwrite": True, "progress": False}
    before = contents(images / "a.ome.zarr")
    for out in ("s.tif", "plate.zarr", "b.npy", "results/a.ome.zarr"):
        assert predict(found, lambda x: x, out=images / out, **options).images == [images / out]
    assert contents(images / "a.ome.zarr") == before


@pytest.mark.parametrize("source", ["s.tif", "s.tif, series 1"])
def test_a_source_that_names_a_file_is_one(images, source):
    with pytest.raises(ValueError, match="out would replace the image"):
        make_store(images / "s.tif", [f"{images}/{source}"], overwrite=True)


# ---- what is at the name of a result ------------------------------------------------------------

ENDINGS = [".npy", ".ome.tif", ".ome.zarr"]


def tried(out, **options):
    """Predict something there; how often the model was asked, and the error."""
    calls = []
    image = ImageStack.from_array(PIXELS.astype(np.float32), "YX")
    options = {"tile_size": (32, 32), "overlaps": (0, 0), "progress": False, **options}
    try:
        predict(image, lambda x: calls.append(None) or x, out=out, **options)
    except OSError as error:
        return len(calls), str(error)
    return len(calls), ""


def read(path):
    return open_images(path, "YX", progress=False).image_stacks[0].data[0, 0]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("ending", ENDINGS)
def test_another_kind_of_thing_is_not_replaced(tmp_path, ending, overwrite):
    out = tmp_path / f"o{ending}"
    if ending == ".ome.zarr":
        out.write_text("a zipped one, say")
        words = r"o.ome.zarr would be a folder, but there is a file of that name: give another out"
    else:
        out.mkdir()
        (out / "mine").touch()
        words = f"o{ending} would be a file, but there is a folder of that name: give another out"
    n_calls, error = tried(out, overwrite=overwrite)
    assert n_calls == 0
    assert words in error
    assert (out / "mine").exists() or out.read_text() == "a zipped one, say"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.parametrize("target", ["a result", "a folder", "a file", "nothing"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_link_is_replaced_and_not_what_it_leads_to(tmp_path, ending, target):
    out, real = tmp_path / f"o{ending}", tmp_path / "elsewhere" / f"real{ending}"
    real.parent.mkdir()
    if target == "a result":
        assert tried(real) == (1, "")
    elif target == "a folder":
        (real / "inside").mkdir(parents=True)
    elif target == "a file":
        real.write_text("mine")
    out.symlink_to(real)
    before = contents(real.parent)
    n_calls, error = tried(out)
    assert n_calls == 0
    assert "exists: overwrite=True replaces it" in error
    for _ in range(2):  # the second replaces no link
        assert tried(out, overwrite=True) == (1, "")
        assert not out.is_symlink()
        np.testing.assert_array_equal(read(out), PIXELS)
    assert contents(real.parent) == before
    assert (real / "inside").is_dir() == (target == "a folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", out.name]


@pytest.mark.parametrize("out", ["file/o.tif", "file/deeper/o.zarr", "file", "dangling/o.npy"])
def test_what_is_no_folder_holds_no_results(tmp_path, out):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to("nowhere")
    n_calls, error = tried(tmp_path / out, overwrite=True)
    assert n_calls == 0
    assert f"{tmp_path / out.partition('/')[0]} is no folder: out cannot be in it" in error
    assert (tmp_path / "file").read_text() == "mine"
