"""Every file that an image is in is known, whichever part of it was opened, and however."""

from pathlib import Path

import numpy as np
import pytest
from pixels import distinct

from gpu_patch import ImageStack, open_images

tifffile = pytest.importorskip("tifffile")
zarr = pytest.importorskip("zarr")


@pytest.fixture(autouse=True)
def _on_the_host(monkeypatch):
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")


def files(images, axes=None, **options):
    return [set(stack.files) for stack in open_images(images, axes, **options).image_stacks]


@pytest.mark.parametrize("by_chunk", [False, True])
def test_files_are_real_ones_and_stay_so(tmp_path, monkeypatch, by_chunk):
    real = tmp_path.resolve() / "real"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    with tifffile.TiffWriter(real / "a.tif") as file:
        for x in (20, 24):
            file.write(distinct((30, x), "uint8"), metadata={"axes": "YX"})
    np.save(real / "b.npy", distinct((30, 20), "uint8"))
    monkeypatch.chdir(tmp_path)
    options = {"by_chunk": by_chunk}
    found = files("link/a.tif", scene="all", **options) + files("link/b.npy", "YX", **options)
    stack = open_images("link/b.npy", "YX", read_func=np.load, **options).image_stacks[0]
    monkeypatch.chdir("/")
    assert found == [{real / "a.tif"}, {real / "a.tif"}, {real / "b.npy"}]
    assert stack.files == (real / "b.npy",)


@pytest.mark.parametrize("opened", [".", "0", "1"])
def test_files_of_a_zarr_are_its_folder_and_that_of_its_pixels(tmp_path, opened):
    from written import make_predicted, make_store, write_all

    path = write_all(make_store(tmp_path / "a.zarr", ["a"]), make_predicted("YX", X=300)).resolve()
    assert files(path / opened, "YX") == [{path / opened, path / opened / "0"} if opened == "."
                                          else {path / opened}]  # fmt: skip
    assert files(path, level=1) == [{path, path / "1"}]


def test_files_of_a_set_are_all_of_it(tmp_path):
    uuids = [f"urn:uuid:{i:08d}-0000-0000-0000-000000000000" for i in range(3)]
    blocks = "".join(
        f'<TiffData FirstT="{t}" IFD="0" PlaneCount="1"><UUID FileName="t{t}.ome.tif">{uuid}'
        "</UUID></TiffData>"
        for t, uuid in enumerate(uuids)
    )
    for t, uuid in enumerate(uuids):
        description = (
            '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="{uuid}"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" '
            'Type="uint8" SizeX="20" SizeY="30" SizeZ="1" SizeC="1" SizeT="3">'
            f'<Channel ID="Channel:0:0"/>{blocks}</Pixels></Image></OME>'
        )
        image = distinct((30, 20), "uint8") + t
        path = tmp_path / f"t{t}.ome.tif"
        tifffile.imwrite(path, image, description=description, metadata=None)
    folder = tmp_path.resolve()
    assert files(tmp_path / "t1.ome.tif") == [{folder / f"t{t}.ome.tif" for t in range(3)}]


def test_arrays_say_their_files(tmp_path):
    path, folder = tmp_path.resolve() / "a.npy", tmp_path.resolve() / "a.zarr"
    np.save(path, distinct((30, 20), "float32"))
    mapped = np.load(path, mmap_mode="r")
    group = zarr.create_group(folder)
    array = group.create_array("inner", shape=(30, 20), dtype="float32")
    array[...] = distinct((30, 20), "float32")
    assert files([mapped, mapped[3:], array], "YX") == [{path}, {path}, {folder / "inner"}]
    assert ImageStack.from_array(mapped, "YX").files == (path,)
    assert ImageStack.from_array(np.zeros((30, 20)), "YX").files == ()
    assert all(isinstance(file, Path) for file in ImageStack.from_array(mapped[1:], "YX").files)
