"""Following a message leads to the goal; plates, zipped Zarr and names with brackets open."""

import re
import zipfile

import numpy as np
import pytest
from formats import multiscales, write_ome_zarr
from pixels import distinct

from gpu_patch import device, open_images, predict
from gpu_patch.cli import main

tifffile = pytest.importorskip("tifffile")
zarr = pytest.importorskip("zarr")


@pytest.fixture(autouse=True)
def _on_the_host(monkeypatch):
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")


def field(number):
    return distinct((19, 27 + number), "uint16") + np.uint16(1000 * number)


def make_plate(path, *, version="0.4", absent=()):
    """Two wells of two fields each, all different."""
    plate = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)

    def describe(group, **attributes):
        wrapped = {"ome": {"version": version, **attributes}}
        group.attrs.update(attributes if version == "0.4" else wrapped)

    wells = [{"path": f"A/{c}", "rowIndex": 0, "columnIndex": c - 1} for c in (1, 2)]
    describe(plate, plate={"rows": [{"name": "A"}], "columns": [{"name": "1"}, {"name": "2"}],
                           "wells": wells})  # fmt: skip
    for w, well in enumerate(("A/1", "A/2")):
        if well in absent:
            continue
        describe(plate.create_group(well), well={"images": [{"path": "0"}, {"path": "1"}]})
        for n in (0, 1):
            image = plate.create_group(f"{well}/{n}")
            pixels = field(2 * w + n)
            array = image.create_array("0", shape=pixels.shape, dtype=pixels.dtype, chunks=(8, 16))
            array[...] = pixels
            old = version == "0.4"
            describe(image, multiscales=multiscales("YX", version=version if old else None))
    return path


def zipped(folder, path, start=""):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, f"{start}{file.relative_to(folder)}")
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_plate_is_all_its_fields(tmp_path, version):
    path = make_plate(tmp_path / "plate.zarr", version=version)
    for source in (path, path / "*" / "*" / "*", zipped(path, tmp_path / "plate.ozx")):
        found = open_images(source).image_stacks
        assert len(found) == 4
        for n, stack in enumerate(found):
            assert np.array_equal(stack.data[0, 0], field(n))
    well = open_images(path / "A" / "2").image_stacks
    assert [np.array_equal(s.data[0, 0], field(2 + n)) for n, s in enumerate(well)] == [True] * 2
    (one,) = open_images(path, scene="A/2/0").image_stacks
    assert np.array_equal(one.data[0, 0], field(2))


def test_fields_of_a_plate_are_predicted_by_name(tmp_path):
    path = make_plate(tmp_path / "plate.zarr")
    predict(open_images(path), lambda x: x, tile_size=(16, 16), overlaps=(4, 4),
            out=tmp_path / "out", format="npy", progress=False)  # fmt: skip
    names = sorted(each.name for each in (tmp_path / "out").iterdir())
    assert names == [f"plate_A_{w}_{n}.npy" for w in (1, 2) for n in (0, 1)]


def test_a_plate_that_lacks_a_well(tmp_path):
    path = make_plate(tmp_path / "plate.zarr", absent=["A/2"])
    with pytest.raises(ValueError, match="the first is well A/2: allow_missing_chunks=True opens"):
        open_images(path)
    assert len(open_images(path, allow_missing_chunks=True).shapes) == 2


def test_a_plate_names_nothing_outside(tmp_path):
    path = make_plate(tmp_path / "plate.zarr")
    group = zarr.open_group(path, mode="r+")
    group.attrs["plate"] = {"wells": [{"path": "../other/A/1"}]}
    with pytest.raises(ValueError, match="outside of its folder"):
        open_images(path)


@pytest.mark.parametrize("name", ["a.ozx", "a.zarr.zip", "a.zip"])
@pytest.mark.parametrize("start", ["", "a.zarr/"])
@pytest.mark.parametrize("by_chunk", [False, True])
def test_zipped_zarr(tmp_path, name, start, by_chunk):
    data = distinct((2, 37, 53), "uint16")
    folder = write_ome_zarr(tmp_path / "a.zarr", data, "CYX")
    path = zipped(folder, tmp_path / name, start)
    images = open_images(path, by_chunk=by_chunk)
    patch = images.image_stacks[0].extract_patch(0, None, (5, 7), (30, 41))
    assert np.array_equal(patch, data[:, 5:35, 7:48])
    assert images.image_stacks[0].files == (path,)
    assert open_images(path, level=1).shapes == open_images(folder, level=1).shapes
    found = open_images(tmp_path / "*.zip" if name != "a.ozx" else tmp_path / "*.ozx")
    assert found.shapes == images.shapes


def test_a_zipped_zarr_that_lacks_a_chunk(tmp_path):
    folder = write_ome_zarr(tmp_path / "a.zarr", distinct((37, 53), "uint16"), "YX")
    chunk = next(f for f in sorted((folder / "0").rglob("*")) if f.is_file() and f.suffix == ""
                 and not f.name.startswith("."))  # fmt: skip
    chunk.unlink()
    path = zipped(folder, tmp_path / "a.ozx")
    with pytest.raises(ValueError, match=r"chunk .* is missing"):
        open_images(path)


def test_a_zip_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("notes.txt", "nothing")
        archive.writestr("more.txt", "nothing")
    with pytest.raises(ValueError, match=r"a\.zip cannot be read as Zarr.*none of the files"):
        open_images(tmp_path / "a.zip")
    (tmp_path / "b.ozx").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"b\.ozx cannot be read as Zarr"):
        open_images(tmp_path / "b.ozx")


def test_labels_of_an_image(tmp_path):
    path = write_ome_zarr(tmp_path / "a.zarr", distinct((37, 53), "uint16"), "YX")
    masks = {"cells": distinct((37, 53), "uint8"), "nuclei": distinct((37, 53), "uint8")[::-1]}
    group = zarr.create_group(path / "labels")
    group.attrs["ome"] = {"version": "0.5", "labels": list(masks)}
    for name, mask in masks.items():
        write_ome_zarr(path / "labels" / name, np.ascontiguousarray(mask), "YX")
    with pytest.raises(ValueError, match=r"2 scenes \(0 \(cells\), 1 \(nuclei\)\)"):
        open_images(path / "labels")
    (found,) = open_images(path / "labels", scene="nuclei").image_stacks
    assert np.array_equal(found.data[0, 0], masks["nuclei"])
    assert len(open_images(path / "labels", scene="all").shapes) == 2


def test_a_group_names_what_opens(tmp_path):
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_group("empty")
    group.create_group("run/deep")
    write_ome_zarr(tmp_path / "a.zarr" / "run" / "deep" / "x", distinct((37, 53), "uint16"), "YX")
    with pytest.raises(ValueError, match="it is a group") as error:
        open_images(tmp_path / "a.zarr")
    advised = re.search(r"such as '([^']+)'", str(error.value))[1]
    assert open_images(advised).shapes == [(1, 1, 37, 53)]


def slide(path, number=0):
    """A plane of one channel, and a picture of the label beside it."""
    tifffile.imwrite(path, distinct((64, 48), "uint16") + np.uint16(number))
    tifffile.imwrite(path, distinct((20, 30, 3), "uint8"), photometric="rgb", append=True)


def test_a_slide_beside_the_picture_of_its_label(tmp_path, capsys):
    slide(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="say scene=0 or another number") as error:
        open_images(tmp_path / "a.tif")
    assert "scene='all'" not in str(error.value)  # which would be an error again
    assert open_images(tmp_path / "a.tif", scene=0).shapes == [(1, 1, 64, 48)]
    main(["info", str(tmp_path / "a.tif")])
    assert "Say --scene 0" in capsys.readouterr().out.replace("scene=0", "--scene 0")


def test_several_slides_say_the_scene(tmp_path):
    for n in range(3):
        slide(tmp_path / f"{n}.tif", n)
    with pytest.raises(ValueError, match="images must agree in channels") as error:
        open_images(tmp_path / "*.tif", scene="all")
    assert "pattern" not in str(error.value)
    advised = int(re.search(r"scene=([0-9])", str(error.value))[1])
    assert len(open_images(tmp_path / "*.tif", scene=advised).shapes) == 3


def test_scenes_that_are_alike_open_together(tmp_path):
    for n in (0, 1):
        tifffile.imwrite(tmp_path / "a.tif", distinct((20 + n, 30), "uint16"), append=bool(n))
    with pytest.raises(ValueError, match="or scene='all'"):
        open_images(tmp_path / "a.tif")
    assert len(open_images(tmp_path / "a.tif", scene="all").shapes) == 2


@pytest.mark.parametrize("folder", ["day [1]", "[ab]", "what?", "a*b"])
def test_folders_with_brackets(tmp_path, folder):
    (tmp_path / folder).mkdir()
    (tmp_path / "a").mkdir()
    names = ["x[1].tif", "x[2].tif"]
    for n, name in enumerate(names):
        tifffile.imwrite(tmp_path / folder / name, distinct((20 + n, 30), "uint16"))
    tifffile.imwrite(tmp_path / "a" / "other.tif", distinct((40, 30), "uint16"))
    one = open_images(tmp_path / folder / names[1])
    assert one.shapes == [(1, 1, 21, 30)]
    for source in ("*.tif", "x*.tif", ""):
        assert open_images(tmp_path / folder / source).shapes == [(1, 1, 20, 30), (1, 1, 21, 30)]


def test_a_folder_without_images_says_where_they_are(tmp_path):
    deep = tmp_path / "day [1]" / "deep"
    deep.mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="it is empty"):
        open_images(deep)
    (deep / "a.dv").write_bytes(b"something")
    with pytest.raises(FileNotFoundError, match="read_func"):
        open_images(tmp_path)
    images = open_images(deep, "YX", read_func=lambda _: np.ones((20, 30), np.uint8))
    assert images.shapes == [(1, 1, 20, 30)]
    np.save(deep / "b.npy", distinct((20, 30), "uint16"))
    with pytest.raises(FileNotFoundError, match="name what is deeper") as error:
        open_images(tmp_path)
    advised = re.search(r"such as '([^']+)'", str(error.value))[1]
    assert open_images(advised, "YX").shapes == [(1, 1, 20, 30)]


def test_an_empty_device_is_none(monkeypatch):
    monkeypatch.setenv("GPU_PATCH_DEVICE", "")
    given = device.resolve(None)
    monkeypatch.delenv("GPU_PATCH_DEVICE")
    assert given == device.resolve(None)
