"""Images whose planes lie in several files: opened once, each plane from its own file."""

import functools
import json
import os
import pickle
import re
import warnings

import numpy as np
import pytest
from ome_sets import describe, pixels_of, write_set
from whole import read_image

from gpu_patch import ImageStack, open_images, predict
from gpu_patch.images.readers import Options, open_file

tifffile = pytest.importorskip("tifffile")

LAYOUTS = {
    "uncompressed": {},
    "strips": {"rowsperstrip": 5, "compression": "zlib"},
    "tiled": {"tile": (16, 16)},
    "tiled and compressed": {"tile": (16, 16), "compression": "zlib"},
    "big endian": {"byteorder": lambda _: ">"},
    "mixed": {
        "byteorder": lambda name: "<>"[sum(name.encode()) % 2],
        "compression": lambda name: [None, "zlib"][sum(name.encode()) // 2 % 2],
        "tile": lambda name: [None, (16, 32)][sum(name.encode()) % 2],
    },
}
SPLITS = {
    "a file per time": lambda p, t, c, z: f"t{t}.ome.tif",
    "a file per channel": lambda p, t, c, z: f"c{c}.ome.tif",
    "a file per position": lambda p, t, c, z: f"pos{p}.ome.tif",
    "a file per plane": lambda p, t, c, z: f"p{p}t{t}c{c}z{z}.ome.tif",
    "one file, later ones for what is left": lambda p, t, c, z: f"part{min(p + t, 1)}.ome.tif",
}


@pytest.fixture(autouse=True)
def _on_the_host(monkeypatch):
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")


def found_in(images, **options):
    """Pixels of all images."""
    return [stack.data for stack in open_images(images, **options).image_stacks]


def check_positions(images, data, **options):
    """All positions have their own pixels, TCZYX."""
    stacks = open_images(images, scene="all", **options).image_stacks
    assert len(stacks) == len(data)
    for stack, position in zip(stacks, data, strict=True):
        whole = position.reshape(stack.data_shape)
        for sample, expected in enumerate(whole):
            size = expected.shape[1:]
            found = stack.extract_patch(sample, None, [0] * len(size), size)
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("by_chunk", [False, True])
@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_plane_is_read_from_its_file(tmp_path, layout, split, by_chunk):
    data = pixels_of(3)
    files = write_set(tmp_path / "a", data, SPLITS[split], **LAYOUTS[layout])
    assert len(files) > 1
    check_positions(files[-1], data, by_chunk=by_chunk)
    check_positions(tmp_path / "a", data, by_chunk=by_chunk)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_types_and_volumes(tmp_path, dtype):
    data = pixels_of(2, (1, 2, 3, 21, 34), dtype)
    write_set(tmp_path / "a", data, lambda p, t, c, z: f"p{p}z{z}.tif",
              byteorder=lambda name: ">" if "z1" in name else "<")  # fmt: skip
    check_positions(tmp_path / "a", data)
    stacks = open_images(tmp_path / "a", scene="all").image_stacks
    assert [stack.data.dtype for stack in stacks] == [dtype] * 2
    assert [stack.original_axes for stack in stacks] == ["CZYX"] * 2
    # each position has a size of its own in the OME-XML
    assert [stack.physical_sizes for stack in stacks] == [{"X": 0.1}, {"X": 0.2}]


@pytest.mark.parametrize("scene", [0, 1, 2, "Position 2"])
def test_one_position(tmp_path, scene):
    data = pixels_of(3)
    files = write_set(tmp_path / "a", data, SPLITS["a file per position"])
    (found,) = found_in(files[1], scene=scene)
    number = scene if isinstance(scene, int) else 2
    np.testing.assert_array_equal(found, data[number][:, :, 0])
    with pytest.raises(ValueError, match=r"pos1\.ome\.tif has 3 scenes \(0 \(Position 0\), 1"):
        open_images(files[1])


def test_other_ways_to_open_a_set(tmp_path):
    data = pixels_of(1)
    files = write_set(tmp_path / "a", data, SPLITS["a file per time"])
    expected = data[0][:, :, 0]
    np.testing.assert_array_equal(ImageStack.from_tiff(files[1]).data, expected)
    pixels, axes = read_image(files[1])
    assert axes == "TCYX"
    np.testing.assert_array_equal(pixels, expected)


def count(images, **options):
    return len(open_images(images, **options).image_stacks)


@pytest.mark.parametrize("binary_only", [False, True])
@pytest.mark.parametrize("companion", [None, "set.companion.ome"])
def test_a_set_is_one_image_however_it_is_named(tmp_path, monkeypatch, companion, binary_only):
    data = pixels_of(1, (12, 1, 1, 21, 34))
    options = {"companion": companion, "binary_only": binary_only}
    files = write_set(tmp_path / "a", data, lambda p, t, c, z: f"t{t}.ome.tif", **options)
    np.save(tmp_path / "a" / "b.npy", data)
    ways = [
        tmp_path / "a" / "*.tif",
        [tmp_path / "a" / "*.tif", tmp_path / "a" / "t1*.tif"],
        files,
        list(reversed(files)),
        files[7],
    ]
    if companion:
        ways += [tmp_path / "a" / companion, [tmp_path / "a" / companion, *files]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for way in ways:
            (found,) = found_in(way)
            np.testing.assert_array_equal(found, data[0][:, :, 0])
    monkeypatch.chdir(tmp_path)
    os.remove(tmp_path / "a" / "b.npy")
    for way in ("a", ["a", tmp_path / "a" / "t3.ome.tif"], ["./a/t1.ome.tif", "a/../a/t2.ome.tif"]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            (found,) = found_in(way)
        np.testing.assert_array_equal(found, data[0][:, :, 0])


def test_a_part_of_a_set_opens_all_of_it_and_says_so(tmp_path):
    data = pixels_of(1, (6, 1, 1, 21, 34))
    files = write_set(tmp_path / "a", data, SPLITS["a file per time"])
    with pytest.warns(UserWarning, match=r"t0\.ome\.tif is one image of 6 files.*t2\.ome.*read_f"):
        assert count(files[:2]) == 1
    read = functools.partial(tifffile.imread, is_ome=False)  # as it says
    found = found_in(files[:2], axes="YX", read_func=read)
    assert [pixels.shape for pixels in found] == [(1, 1, 21, 34)] * 2


def test_sets_beside_each_other_and_files_that_stand_alone(tmp_path):
    first, second = pixels_of(2, (3, 1, 1, 21, 34))
    folder = tmp_path / "a"
    write_set(folder, [first], lambda p, t, c, z: f"a{t}.tif")
    write_set(folder, [second], lambda p, t, c, z: f"b{t}.tif")
    tifffile.imwrite(folder / "c.tif", first[0, 0, 0], metadata={"axes": "YX"})
    found = found_in(folder)
    assert [len(pixels) for pixels in found] == [3, 3, 1]
    np.testing.assert_array_equal(found[1], second[:, :, 0])


def test_plain_files_that_another_one_places(tmp_path):
    data = pixels_of(1, (3, 1, 1, 21, 34))
    files = write_set(tmp_path / "a", data, lambda p, t, c, z: f"t{t}.tif")
    for file in files[:2]:  # it comes after them
        tifffile.imwrite(file, tifffile.imread(file, is_ome=False), metadata=None)
    (found,) = found_in(tmp_path / "a")
    np.testing.assert_array_equal(found, data[0][:, :, 0])


def test_a_file_counts_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a1", "a2", "b"):
        tifffile.imwrite(f"{name}.tif", np.ones((9, 13), "u1"), metadata={"axes": "YX"})
    once = lambda *images, **more: count(list(images), **more)  # noqa: E731
    assert once("*.tif", "a*.tif") == once("a*.tif", "*.tif", tmp_path) == 3
    assert once("*.tif", "a1.tif") == once("a1.tif", "*.tif") == once(".", "./b.tif") == 3
    # who names a file twice means it: targets of two images may be one
    assert once("a1.tif", "b.tif", "a1.tif") == 3
    assert once("*.tif", "a*.tif", axes="YX", read_func=tifffile.imread) == 3
    os.symlink("b.tif", "c.tif")  # as data management keeps equal files
    assert once("*.tif") == 4


@pytest.mark.parametrize("allow", [False, True])
@pytest.mark.parametrize("by_chunk", [False, True])
def test_missing_files_are_named(tmp_path, allow, by_chunk):
    data = pixels_of(2, (3, 2, 1, 21, 34))
    files = write_set(tmp_path / "a", data, lambda p, t, c, z: f"p{p}t{t}.tif")
    files[3].unlink()  # the first of the second position
    files[5].unlink()
    (whole,) = found_in(files[4], scene=0)  # which needs none of them
    np.testing.assert_array_equal(whole, data[0][:, :, 0])
    if not allow:
        message = r"p0t0\.tif cannot.*3 files of the image 2 are missing, 'p1t0\.tif', 'p1t2\.tif'"
        with pytest.raises(ValueError, match=message):
            open_images(files[0], scene=1, by_chunk=by_chunk)
        return
    data[1, [0, 2]] = 0
    check_positions(files[0], data, allow_missing_chunks=True, by_chunk=by_chunk)


def test_a_position_without_files_keeps_its_number(tmp_path):
    data = pixels_of(3)
    files = write_set(tmp_path / "a", data, SPLITS["a file per position"])
    files[1].unlink()
    (found,) = found_in(files[0], scene=2)
    np.testing.assert_array_equal(found, data[2][:, :, 0])
    for options in ({}, {"allow_missing_chunks": True}):
        with pytest.raises(ValueError, match=r"missing, 'pos1\.ome\.tif'|none of the pages"):
            open_images(files[0], scene=1, **options)


def test_a_page_that_is_missing_in_a_file(tmp_path):
    data = pixels_of(1)
    files = write_set(tmp_path / "a", data, SPLITS["a file per time"])
    tifffile.imwrite(files[1], data[0, 1, 0, 0], metadata=None)  # one page of two
    with pytest.raises(ValueError, match=r"page 3 of the image, page 1 of 't1\.ome\.tif', is mis"):
        open_images(files[0])
    data[0, 1, 1] = 0
    check_positions(files[0], data, allow_missing_chunks=True)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("by_chunk", [False, True])
@pytest.mark.parametrize(
    ("pixels", "words"),
    [
        (np.ones((20, 34), np.uint16), "has pages of 20×34 pixels, where the OME-XML says 21×34"),
        (np.ones((21, 34), np.uint8), r"has pages of the shape \(21, 34\) and of uint(8|16), "),
        (np.ones((21, 34, 3), np.uint16), r"\(21, 34, 3\)"),
    ],
    ids=["shape", "type", "colours"],
)
def test_a_file_that_does_not_fit_is_named(tmp_path, which, by_chunk, pixels, words):
    data = pixels_of(1, (3, 1, 1, 21, 34))
    files = write_set(tmp_path / "a", data, SPLITS["a file per time"])
    with tifffile.TiffFile(files[0]) as file:
        xml = file.ome_metadata.encode() if which == 0 else None
    tifffile.imwrite(files[which], pixels, description=xml, metadata=None)
    with pytest.raises(ValueError, match=words) as caught:
        open_images(files[0], by_chunk=by_chunk)
    assert f"t{which}.ome.tif" in str(caught.value)
    assert str(files[0]) in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    data = pixels_of(1, (3, 1, 1, 21, 34))
    files = write_set(tmp_path / "a", data, SPLITS["a file per time"])
    files[2].write_bytes(files[2].read_bytes()[:-300])
    with pytest.raises(ValueError, match=r"t0\.ome\.tif .*t2\.ome\.tif' ends behind the file"):
        open_images(files[0])
    files[2].write_bytes(b"no TIFF at all")
    with pytest.raises(ValueError, match=r"t0\.ome\.tif cannot.*t2\.ome\.tif"):
        open_images(files[0])
    files[2].unlink()
    files[2].mkdir()
    with pytest.raises((ValueError, OSError), match=r"t2\.ome\.tif"):
        open_images(files[0])


def rewrite(path, value):
    with tifffile.TiffFile(path) as file:
        start, n_bytes = file.pages[0].dataoffsets[0], sum(file.pages[0].databytecounts)
    content = bytearray(path.read_bytes())
    content[start : start + n_bytes] = bytes([value]) * n_bytes
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))


def test_a_file_that_is_rewritten_is_noticed(tmp_path):
    data = pixels_of(1, (3, 1, 1, 21, 34))
    files = write_set(tmp_path / "a", data, SPLITS["a file per time"])
    found = open_images(files[0], by_chunk=True)
    sent = pickle.dumps(found)
    (reader,) = open_file(files[0], Options())
    rewrite(files[1], 7)
    np.testing.assert_array_equal(found.extract_patch(0, 2, (0, 0), (21, 34))[0], data[0, 2, 0, 0])
    words = r"t0\.ome\.tif: 't1\.ome\.tif', one of its files, has changed since it was opened"
    with pytest.raises(ValueError, match=words):
        found.extract_patch(0, 1, (0, 0), (21, 34))
    with reader, pytest.raises(ValueError, match=words):
        reader.whole()
    # another process, which opens the files again
    with pytest.raises(ValueError, match=words):
        pickle.loads(sent)


@pytest.mark.parametrize("rewritten", [0, 1, 2])
def test_results_are_not_resumed_from_other_files(tmp_path, rewritten):
    pytest.importorskip("zarr")
    data = pixels_of(1, (3, 1, 1, 21, 34))
    files = write_set(tmp_path / "a", data, SPLITS["a file per time"])
    seen = []

    def model(batch):
        seen.append(len(batch))
        return batch

    def run(**options):
        return predict(open_images(tmp_path / "a"), model, tile_size=(21, 34), overlaps=(0, 0),
                       out=tmp_path / "out", resume=True, **options).images  # fmt: skip

    (path,) = run()
    assert [p.name for p in (tmp_path / "out").iterdir() if p.name[0] != "."] == [path.name]
    assert sum(seen) == 3
    run()
    assert sum(seen) == 3
    rewrite(files[rewritten], 7)
    with pytest.raises((ValueError, FileExistsError)):
        run()
    run(overwrite=True)
    assert sum(seen) == 6
    data[0, rewritten] = 7 * 257
    (stack,) = open_images(path).image_stacks
    np.testing.assert_array_equal(stack.data[:, 0], data[0][:, 0, 0])


def test_names_that_scenes_share(tmp_path):
    data = pixels_of(3)
    files = write_set(tmp_path / "a", data, SPLITS["a file per position"])
    for file in files:
        file.write_bytes(file.read_bytes().replace(b"Position 2", b"Position 1"))
    with pytest.raises(ValueError, match=r"2 scenes that are called 'Position 1', of the numbers "
                       r"1, 2: say scene=1"):  # fmt: skip
        open_images(files[0], scene="Position 1")
    (found,) = found_in(files[0], scene="Position 0")
    np.testing.assert_array_equal(found, data[0][:, :, 0])


def test_one_uuid_in_all_files(tmp_path):
    # some writers do so; the names tell them apart
    data = pixels_of(3)
    options = {"uuid_for": lambda name: "urn:uuid:always"}
    files = write_set(tmp_path / "a", data, SPLITS["a file per position"], **options)
    for file in files:
        check_positions(file, data)


def test_xml_that_was_copied_into_every_file(tmp_path):
    data = pixels_of(2)
    files = write_set(tmp_path / "a", data, SPLITS["a file per position"])
    with tifffile.TiffFile(files[0]) as file:
        text = file.ome_metadata.encode()
    content = files[1].read_bytes()
    own = re.search(rb"<\?xml.*</OME>", content, re.DOTALL).group()
    files[1].write_bytes(content.replace(own, text))  # its root says that it is the first
    for file in files:
        check_positions(file, data)


def test_renamed_files(tmp_path):
    data = pixels_of(1)
    (file,) = write_set(tmp_path / "a", data, lambda p, t, c, z: "old.ome.tif")
    copy = file.with_name("new.ome.tif")
    copy.write_bytes(file.read_bytes())
    assert count(tmp_path / "a") == 2
    file.unlink()
    check_positions(copy, data)
    # a UUID that another program took out, or made anew
    copy.write_bytes(copy.read_bytes().replace(b'UUID="urn:uuid:old.ome.tif"',
                                               b'UUID="urn:uuid:new.ome.tif"'))  # fmt: skip
    check_positions(copy, data)
    check_positions(tmp_path / "a", data)
    files = write_set(tmp_path / "b", data, SPLITS["a file per time"])
    moved = files[0].rename(files[0].with_name("x.tif"))
    check_positions(moved, data)
    with pytest.raises(ValueError, match=r"t1\.ome\.tif cannot.*1 is missing, 't0\.ome\.tif'"):
        open_images(files[1])


def test_without_the_file_that_describes_the_set(tmp_path):
    data = pixels_of(1, (3, 1, 1, 21, 34))
    files = write_set(tmp_path / "a", data, SPLITS["a file per time"], companion="x.companion.ome")
    (tmp_path / "a" / "x.companion.ome").unlink()
    words = r"t1\.ome\.tif .*a set that 'x\.companion\.ome' describes, which is not.*or give axes"
    with pytest.raises(ValueError, match=words):
        open_images(files[1])
    (found,) = found_in(files[1], axes="YX")
    np.testing.assert_array_equal(found[0, 0], data[0, 1, 0, 0])


def test_levels_of_a_pyramid_in_several_files(tmp_path):
    data = pixels_of(1, (3, 1, 1, 32, 48))
    names = [f"t{t}.tif" for t in range(3)]
    from ome_sets import Plane

    planes = {(t, 0, 0): Plane(name) for t, name in enumerate(names)}
    for t, name in enumerate(names):
        text = describe([("", planes, data[0])], name).encode()
        with tifffile.TiffWriter(tmp_path / name, byteorder="<>"[t % 2]) as file:
            options = {"metadata": None, "photometric": "minisblack"}
            file.write(data[0, t, 0, 0], description=text, subifds=1, **options)
            file.write(data[0, t, 0, 0, ::2, ::2], subfiletype=1, **options)
    check_positions(tmp_path, data)
    (found,) = found_in(tmp_path, level=1)
    np.testing.assert_array_equal(found, data[0, :, :, 0, ::2, ::2])
    with pytest.raises(ValueError, match="no level 2"):
        open_images(tmp_path, level=2)


@pytest.mark.parametrize("order", ["XYCZT", "XYZTC", "XYTCZ", "XYTZC"])
def test_orders_of_planes_and_counts(tmp_path, order):
    """Each file is given as a whole, from its first plane."""
    shape = {"T": 2, "C": 3, "Z": 4, "Y": 21, "X": 34}
    axes = order[::-1]
    data = pixels_of(1, tuple(shape[axis] for axis in axes))[0]
    places = ""
    for i, part in enumerate(data):
        with tifffile.TiffWriter(tmp_path / f"{i}.tif") as file:
            for page in part.reshape(-1, 21, 34):
                file.write(page, metadata=None, photometric="minisblack", contiguous=False)
        places += (
            f'<TiffData First{axes[0]}="{i}"><UUID FileName="{i}.tif">urn:uuid:{i}</UUID>'
            "</TiffData>"
        )
    sizes = " ".join(f'Size{axis}="{n}"' for axis, n in shape.items())
    (tmp_path / "a.companion.ome").write_text(
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2013-06"><Image><Pixels '
        f'DimensionOrder="{order}" Type="uint16" {sizes}>{places}</Pixels></Image></OME>'
    )
    (stack,) = open_images(tmp_path).image_stacks
    assert stack.original_axes == axes
    expected = data.transpose([axes.index(axis) for axis in "TCZYX"])
    np.testing.assert_array_equal(stack.data, expected)


def test_colours_in_several_files(tmp_path):
    data = (np.arange(3 * 21 * 34 * 3) % 251).reshape(3, 21, 34, 3).astype(np.uint8)
    places = "".join(
        f'<TiffData FirstT="{t}" IFD="0" PlaneCount="1"><UUID FileName="{t}.tif">{t}</UUID>'
        "</TiffData>"
        for t in range(3)
    )
    text = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="0"><Image><Pixels '
        'DimensionOrder="XYCZT" Type="uint8" SizeX="34" SizeY="21" SizeC="3" SizeZ="1" SizeT="3">'
        f'<Channel SamplesPerPixel="3"/>{places}</Pixels></Image></OME>'
    )
    for t in range(3):
        tifffile.imwrite(tmp_path / f"{t}.tif", data[t], photometric="rgb", metadata=None,
                         description=text if t == 0 else None)  # fmt: skip
    (stack,) = open_images(tmp_path).image_stacks
    assert stack.original_axes == "TYXC"
    np.testing.assert_array_equal(stack.data, data.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    "change",
    [
        (b'SizeT="2"', b'SizeT="0"'),
        (b'SizeT="2"', b'SizeT="999999999"'),
        (b'SizeT="2"', b'SizeT="many"'),
        (b'SizeT="2"', b""),
        (b'DimensionOrder="XYZCT"', b'DimensionOrder="XYZCC"'),
        (b'IFD="0"', b'IFD="-1"'),
        (b'PlaneCount="1"', b'PlaneCount="-7"'),
    ],
    ids=lambda change: change[1].decode() or "nothing",
)
def test_numbers_that_cannot_be(tmp_path, change):
    files = write_set(tmp_path / "a", pixels_of(1), SPLITS["a file per time"], binary_only=True)
    content = files[0].read_bytes()
    old, new = change
    assert old in content
    start, end = content.index(b"<?xml"), content.index(b"</OME>") + 6
    xml = content[start:end].replace(old, new)
    assert b"OME" in xml
    tifffile.imwrite(files[0], pixels_of(1)[0, 0, 0, 0], description=xml, metadata=None)
    for file in files:
        with pytest.raises(ValueError, match=re.escape(str(file))) as caught:
            open_images(file)
        assert str(caught.value).strip()[-1] != ":"


def test_the_command_line_takes_a_set_once(tmp_path, capsys):
    from gpu_patch.cli import main

    data = pixels_of(1, (6, 1, 1, 21, 34))
    files = write_set(tmp_path / "a", data, SPLITS["a file per time"])
    for names in ([files[0]], files, [tmp_path / "a"], [tmp_path / "a" / "*.tif", files[2]]):
        assert main(["info", "--json", *map(str, names)]) == 0
        printed = json.loads(capsys.readouterr().out)
        assert [image["shape"] for image in printed["images"]] == [[6, 21, 34]]
    assert printed["images"][0]["format"] == "OME-TIFF of 6 files"
    pytest.importorskip("matplotlib")
    picture = str(tmp_path / "a.png")
    assert main(["preview", *map(str, files), "--patch-size", "8", "--out", picture]) == 0
    assert capsys.readouterr().out.count("read ") == 1
    tifffile.imwrite(files[3], data[0, 0, 0, 0], metadata=None)
    assert main(["info", str(files[0])]) == 0
    files[3].unlink()
    assert main(["info", str(files[0])]) == 2
    assert "'t3.ome.tif'" in capsys.readouterr().out
