"""CZI files of acquisitions that began late, were stopped, or differ between scenes."""

import struct

import numpy as np
import pytest
from formats import numbered

from gpu_patch import open_images
from gpu_patch.cli import main
from gpu_patch.images.readers import Options, open_file

czi = pytest.importorskip("pylibCZIrw.czi")


@pytest.fixture(autouse=True)
def _on_the_host(monkeypatch):
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")


def write(path, data, *, without=(), first=(0, 0, 0), scenes=(0,), place=lambda s: (200 * s, 0)):
    """Write STCZYX but for the planes `without`, counted from `first` (T, C, Z)."""
    with czi.create_czi(str(path)) as file:
        for s, number in enumerate(scenes):
            for at in np.ndindex(data.shape[1:4]):
                if (number, *at) in without:
                    continue
                plane = {a: n + f for a, n, f in zip("TCZ", at, first, strict=True)}
                numbers = {} if scenes == (0,) else {"scene": number}
                file.write(data[(s, *at)], plane=plane, location=place(number), **numbers)


@pytest.mark.parametrize("first", [(0, 0, 5), (3, 0, 0), (0, 2, 0), (7, 1, 4)], ids=str)
@pytest.mark.parametrize("scenes", [(0,), (0, 1), (4, 5)], ids=str)
@pytest.mark.parametrize("by_chunk", [False, True])
def test_counting_may_start_anywhere(tmp_path, first, scenes, by_chunk):
    data = numbered("STCZYX")[: len(scenes)]
    write(tmp_path / "a.czi", data, first=first, scenes=scenes)
    found = open_images(tmp_path / "a.czi", scene="all", by_chunk=by_chunk)
    for i, number in enumerate(scenes):
        alone = open_images(tmp_path / "a.czi", scene=number).image_stacks[0]
        assert np.array_equal(alone.data, data[i])
        for t in range(data.shape[1]):
            patch = found.extract_patch(i, t, (1, 5, 7), (3, 20, 30))
            assert np.array_equal(patch, data[i, t, :, 1:4, 5:25, 7:37])


@pytest.mark.parametrize("lost", [(1, 1, 2), (0, 1, 3)], ids=str)
@pytest.mark.parametrize("scenes", [(0,), (0, 1)], ids=str)
def test_missing_planes_are_refused_or_zero(tmp_path, lost, scenes, capsys):
    data = numbered("STCZYX")[: len(scenes)] + 1
    scene = scenes[-1]
    path = tmp_path / "a.czi"
    write(path, data, without={(scene, *lost), (scene, 2, 1, 1)}, scenes=scenes)
    said = "2 of 24 planes were never written, the first is T {}, C {}, Z {}".format(*lost)
    for options in ({}, {"by_chunk": True}):
        with pytest.raises(ValueError, match=f"{said}: allow_missing_chunks=True takes zeros"):
            open_images(path, scene=scene, **options)
        found = open_images(path, scene=scene, allow_missing_chunks=True, **options)
        expected = data[-1].copy()
        expected[lost] = expected[2, 1, 1] = 0
        for t in range(3):
            patch = found.extract_patch(0, t, (0, 0, 0), expected.shape[2:])
            assert np.array_equal(patch, expected[t])
    if len(scenes) > 1:
        assert np.array_equal(open_images(path, scene=0).image_stacks[0].data, data[0])
    assert main(["info", str(path)]) == 2
    shown = capsys.readouterr().out
    assert said in shown
    assert "--allow-missing-chunks reads the rest" in shown
    assert shown.count("24×") == 0
    assert shown.count("3×2×4×37×53") == len(scenes)  # the others stand in the table too
    assert main(["info", str(path), "--allow-missing-chunks"]) == 0
    assert f": {said}\n" in capsys.readouterr().out


def test_missing_scenes(tmp_path, capsys):
    data = numbered("STCZYX")
    path = tmp_path / "a.czi"
    write(path, data, scenes=(0, 2))
    said = "1 of 3 scenes were never written, the first is scene 1"
    with pytest.raises(ValueError, match=rf"a\.czi: {said}: it has 0, 2"):
        open_images(path, scene=1)
    with pytest.raises(ValueError, match=rf"a\.czi: {said}: allow_missing_chunks=True opens the o"):
        open_images(path, scene="all")
    with pytest.raises(ValueError, match=r"a\.czi has no scene 3, only 0, 2"):
        open_images(path, scene=3)
    found = open_images(path, scene="all", allow_missing_chunks=True)
    for stack, expected in zip(found.image_stacks, data, strict=True):
        assert np.array_equal(stack.data, expected)
    assert np.array_equal(open_images(path, scene=2).image_stacks[0].data, data[1])
    assert main(["info", str(path)]) == 2
    assert said in capsys.readouterr().out


def test_every_scene_has_its_own_box(tmp_path):
    first, second = numbered("TCZYX"), numbered("TCZYX", T=2, Z=3, Y=20, X=90) + 5
    path = tmp_path / "a.czi"
    with czi.create_czi(str(path)) as file:
        for s, data in enumerate((first, second)):
            for t, c, z in np.ndindex(data.shape[:3]):
                plane = {"T": t, "C": c, "Z": z + s}
                file.write(data[t, c, z], plane=plane, scene=s, location=(500 * s, 31 * s))
    assert np.array_equal(open_images(path, scene=0).image_stacks[0].data, first)
    short = r"scene 1: this scene has 2 along T, where others have up to 3 and 3 along Z, where"
    with pytest.warns(UserWarning, match=short):
        found = open_images(path, scene=1).image_stacks[0]
    assert np.array_equal(found.data, second)


def test_gaps_of_a_mosaic_are_zero(tmp_path):
    tiles = numbered("TCZYX", T=3, C=1, Z=1)[:, 0, 0] + 1
    path = tmp_path / "a.czi"
    with czi.create_czi(str(path)) as file:
        for m, place in enumerate([(0, 0), (53, 0), (53, 37)]):  # x, y
            file.write(tiles[m], plane={"T": 0, "C": 0, "Z": 0}, scene=0, location=place)
    found = open_images(path).image_stacks[0].data[0, 0]
    expected = np.zeros((74, 106), np.uint16)
    expected[:37, :53], expected[:37, 53:], expected[37:, 53:] = tiles
    assert np.array_equal(found, expected)


def test_missing_planes_of_colours(tmp_path):
    data = numbered("ZYXC", np.uint8, C=3) + 1
    path = tmp_path / "a.czi"
    with czi.create_czi(str(path)) as file:
        for z in (0, 1, 3):
            file.write(data[z, ..., ::-1].copy(), plane={"T": 2, "C": 3, "Z": z + 6})
    with pytest.raises(ValueError, match=r"1 of 4 planes were never written, the first.*Z 8"):
        open_images(path)
    stack = open_images(path, allow_missing_chunks=True).image_stacks[0]
    expected = data.transpose(3, 0, 1, 2).copy()
    expected[:, 2] = 0
    assert np.array_equal(stack.data[0], expected)
    assert (stack.original_axes, stack.colours) == ("ZYXC", "RGB")


def test_types_of_pixels_may_not_differ(tmp_path):
    path = tmp_path / "a.czi"
    with czi.create_czi(str(path)) as file:
        for c, dtype in enumerate((np.uint8, np.uint16)):
            file.write(np.ones((9, 11), dtype), plane={"T": 0, "C": c, "Z": 0})
    with pytest.raises(ValueError, match=r"a\.czi.*its pixels are \['Gray16', 'Gray8'\]"):
        open_file(path, Options())


def test_old_package_is_refused(tmp_path, monkeypatch):
    write(tmp_path / "a.czi", numbered("STCZYX")[:1])
    monkeypatch.delattr(czi.CziReader, "enumerate_subblocks_subset")
    with pytest.raises(ImportError, match=r"pylibCZIrw 6\.1 or newer: pip install --upgrade"):
        open_images(tmp_path / "a.czi")


def test_lower_resolutions_are_no_part_of_the_image(tmp_path):
    data = numbered("YX") + 1
    path = tmp_path / "a.czi"
    with czi.create_czi(str(path)) as file:
        for t in (0, 2):
            file.write(data, plane={"T": t, "C": 0, "Z": 0})
        for t in (0, 1):  # thumbnails, of more than the image and of a time that is not there
            file.write(data[:11, :13] * 0 + 7, plane={"T": t, "C": 0, "Z": 0})
    content = path.read_bytes()
    for axis, stored, size in ((b"X\0\0\0", 13, 104), (b"Y\0\0\0", 11, 88)):
        head = axis + struct.pack("<ii", 0, stored)
        assert content.count(head) == 4  # in the directory, and at each tile
        content = content.replace(head, axis + struct.pack("<ii", 0, size))
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"1 of 3 planes were never written, the first is T 1"):
        open_images(path)
    found = open_images(path, allow_missing_chunks=True).image_stacks[0].data
    assert np.array_equal(found[:, 0], [data, data * 0, data])
