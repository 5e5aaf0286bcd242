"""One image of many files, whose names say time, channel, slice or sample."""

import pickle
import re

import numpy as np
import pytest
from formats import canonical, numbered

from gpu_patch import ImageStack, open_images
from gpu_patch.cli import main

tifffile = pytest.importorskip("tifffile")


@pytest.fixture(autouse=True)
def _on_the_host(monkeypatch):
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")


TIMES, CHANNELS = ["2", "9", "10", "100"], ["DAPI", "GFP 488"]


@pytest.fixture
def data():
    return numbered("TCZYX", T=4)


def write(folder, data, name="t{t}_c{c}.tif", times=TIMES, channels=CHANNELS, **options):
    for t, time in enumerate(times):
        for c, channel in enumerate(channels):
            path = folder / name.replace("{t}", time).replace("{c}", channel)
            path.parent.mkdir(parents=True, exist_ok=True)
            options = {"metadata": {"axes": "ZYX"}, "photometric": "minisblack", **options}
            tifffile.imwrite(path, data[t, c], **options)


def check(stack, data, axes="TCZYX"):
    """All of it, and windows."""
    expected = canonical(data, axes)
    assert (stack.data_shape, stack.original_axes) == (expected.shape, axes)
    rng = np.random.default_rng(0)
    for sample in range(len(expected)):
        start = [int(rng.integers(n)) for n in expected.shape[2:]]
        size = [
            int(rng.integers(1, n - s + 1)) for n, s in zip(expected.shape[2:], start, strict=True)
        ]
        place = tuple(slice(s, s + n) for s, n in zip(start, size, strict=True))
        found = stack.extract_patch(sample, None, start, size)
        assert np.array_equal(found, expected[(sample, slice(None), *place)])


@pytest.mark.parametrize("by_chunk", [False, True])
@pytest.mark.parametrize("options", [{}, {"tile": (16, 16), "compression": "zlib"}], ids=str)
@pytest.mark.parametrize(
    "name",
    [
        "img_t{t}_c{c}.tif",
        "{c}/{t}.tif",
        "time {t}/channel {c} at {t}.tif",
        "[a] t{T}, {C}.ome.tif",
    ],
)
def test_files_are_put_together_in_natural_order(tmp_path, data, name, options, by_chunk):
    write(tmp_path, data, name.replace("{T}", "{t}").replace("{C}", "{c}"), **options)
    write(tmp_path / "others" / "deeper", data)
    found = open_images(tmp_path / name, by_chunk=by_chunk)
    check(found.image_stacks[0], data)
    assert len(found.image_stacks) == 1
    assert found.image_stacks[0].data.dtype == np.uint16
    if by_chunk:  # as another process gets it
        check(pickle.loads(pickle.dumps(found.image_stacks[0])), data)


def test_words_that_do_not_matter(tmp_path, data):
    for t, time in enumerate(TIMES):
        write(tmp_path, data[[t]], f"t{{t}}_{t * 7}_c{{c}}_x.tif", [time])
    check(open_images(tmp_path / "t{t}_*_c{c}_?.tif").image_stacks[0], data)
    with pytest.raises(FileNotFoundError, match="there must be a file for each combination"):
        open_images(tmp_path / "t{t}_{z}_c{c}_?.tif")
    write(tmp_path, data[:1], "t{t}_88_c{c}_x.tif", ["9"])
    with pytest.raises(ValueError, match=r"are for the same place: put what differs in braces"):
        open_images(tmp_path / "t{t}_*_c{c}_?.tif")


@pytest.mark.parametrize("by_chunk", [False, True])
def test_every_axis_can_be_counted(tmp_path, by_chunk):
    data = numbered("STCZYX")
    for s, t, c, z in np.ndindex(data.shape[:4]):
        np.save(tmp_path / f"{z}-{s}-{c}-{t}.npy", data[s, t, c, z])
    found = open_images(tmp_path / "{z}-{s}-{c}-{t}.npy", "yx", by_chunk=by_chunk)
    check(found.image_stacks[0], data, "STCZYX")


def test_a_function_of_the_user_reads_the_files(tmp_path, data):
    write(tmp_path, data, "t{t}_{c}.raw")
    for by_chunk in (False, True):
        found = open_images(
            tmp_path / "t{t}_{c}.raw", "ZYX", read_func=tifffile.imread, by_chunk=by_chunk
        )
        check(found.image_stacks[0], data)


def test_missing_files_are_listed(tmp_path, data, capsys):
    write(tmp_path, data)
    (tmp_path / "t10_cDAPI.tif").unlink()
    (tmp_path / "t2_cGFP 488.tif").unlink()
    name = tmp_path / "t{t}_c{c}.tif"
    with pytest.raises(FileNotFoundError) as raised:
        open_images(name)
    said = str(raised.value)
    assert "t ['2', '9', '10', '100']; c ['DAPI', 'GFP 488']" in said
    assert said.endswith("but 2 of 8 are missing: t2_cGFP 488.tif, t10_cDAPI.tif")
    assert main(["info", str(name)]) == 2
    assert "2 of 8 are missing" in capsys.readouterr().out
    with pytest.raises(
        FileNotFoundError, match=r"no file matches '.*q\{t\}\.tif'.*\{t\} stand for"
    ):
        open_images(tmp_path / "q{t}.tif")


def test_files_must_be_alike(tmp_path, data):
    name = tmp_path / "t{t}_c{c}.tif"
    for other, words in (
        (data[0, 0].astype("u1"), "agree in dtype.*t2_cDAPI.tif' has uint16, .*t9_cDAPI.*' uint8"),
        (data[0, 0, :, 1:], r"agree in shape.*has \(4, 37, 53\), '.*t9_cDAPI.tif' \(4, 36, 53\)"),
    ):
        write(tmp_path, data)
        written = {"metadata": {"axes": "ZYX"}, "photometric": "minisblack"}
        tifffile.imwrite(tmp_path / "t9_cDAPI.tif", other, **written)
        with pytest.raises(ValueError, match=words):
            open_images(name)
    write(tmp_path, data)
    with pytest.raises(ValueError, match=r"its names count Z, and its files, of the axes ZYX, do"):
        open_images(tmp_path / "t{z}_cDAPI.tif")
    tifffile.imwrite(tmp_path / "t9_cDAPI.tif", data[0, 0], append=True, photometric="minisblack")
    with pytest.raises(ValueError, match=r"t9_cDAPI.tif has 2 scenes"):
        open_images(name)


def test_slices_of_a_file_and_of_names(tmp_path):
    data = numbered("TCZYX", Z=1, C=1, T=3)
    for t in range(3):
        tifffile.imwrite(
            tmp_path / f"z{t}.ome.tif", data[[t]], ome=True, metadata={"axes": "TCZYX"},
            photometric="minisblack",
        )  # fmt: skip
    planes = data[:, 0, 0]
    # the files say one Z and one T themselves
    check(open_images(tmp_path / "z{z}.ome.tif").image_stacks[0], planes, "ZYX")
    check(open_images(tmp_path / "z{t}.ome.tif").image_stacks[0], planes, "TYX")
    check(open_images(tmp_path / "z{t}.ome.tif", "czyx").image_stacks[0], data, "TCZYX")
    assert open_images(tmp_path / "z{z}.ome.tif", "yx").shapes == [(1, 1, 3, 37, 53)]


def test_change_of_one_file_is_noticed(tmp_path, data):
    write(tmp_path, data)
    stack = open_images(tmp_path / "t{t}_c{c}.tif", by_chunk=True).image_stacks[0]
    stack.extract_patch(0, None, (0, 0, 0), (4, 5, 5))
    written = {"metadata": {"axes": "ZYX"}, "photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "t100_cDAPI.tif", data[0, 0, :3], **written)
    with pytest.raises(ValueError, match=r"t100_cDAPI\.tif"):
        stack.extract_patch(3, None, (0, 0, 0), (4, 5, 5))


def test_a_file_with_braces_in_its_name_is_itself(tmp_path, data):
    tifffile.imwrite(tmp_path / "t{t}.tif", data[0, 0, 0])
    tifffile.imwrite(tmp_path / "t1.tif", data[0, 0, 1])
    check(open_images(tmp_path / "t{t}.tif").image_stacks[0], data[0, 0, 0], "YX")


def test_commands(tmp_path, data, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, data)
    assert main(["info", "t{t}_c{c}.tif"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"4×2×4×37×53 +TCZYX +uint16", shown)
    assert "TIFF, 8 files: T ['2', '9', '10', '100']; C ['DAPI', 'GFP 488']" in shown
    assert main(["preview", "t{t}_c{c}.tif", "--patch-size", "16", "--samples", "1"]) == 0
    assert "shape (4, 2, 4, 37, 53), axes TCZYX" in capsys.readouterr().out


def test_stack_knows_its_files(tmp_path, data):
    write(tmp_path, data)
    stack = open_images(tmp_path / "t{t}_c{c}.tif").image_stacks[0]
    assert isinstance(stack, ImageStack)
    assert len(stack.files) == 8
    assert stack.source == tmp_path / "t{t}_c{c}.tif"
