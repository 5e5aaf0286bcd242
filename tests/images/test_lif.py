"""LIF and LOF files, written as Leica's format says."""

import numpy as np
import pytest
from formats import numbered
from lif_writer import STEPS, image, write_lif, write_lof
from whole import regions_agree

from gpu_patch import open_images
from gpu_patch.cli import main
from gpu_patch.images.readers import Options, open_file

pytest.importorskip("liffile")


@pytest.fixture(autouse=True)
def _on_the_host(monkeypatch):
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("axes", ["YX", "CYX", "ZYX", "TZYX", "TZCYX", "CTYX"])
def test_any_region(tmp_path, axes, dtype):
    data = numbered(axes, dtype)
    write_lif(tmp_path / "a.lif", [image("nuclei", data, axes)])
    (reader,) = open_file(tmp_path / "a.lif", Options())
    reader.check()
    info = reader.info
    assert (info.format, info.axes, info.shape, info.dtype) == ("LIF", axes, data.shape, dtype)
    regions_agree(reader, data)
    expected = {axis: abs(STEPS[axis]) * 1e6 for axis in axes if axis in "XYZ"}
    assert info.physical_sizes == pytest.approx(expected)
    assert info.calibration.time_interval == (2.5 if "T" in axes else None)
    assert info.calibration.origin == pytest.approx(dict.fromkeys(expected, 1.0))


@pytest.mark.parametrize("fill_rows", [1, 12])
def test_colours(tmp_path, fill_rows):
    data = numbered("ZYXC", np.uint8, C=3, Z=2)
    write_lif(tmp_path / "a.lif", [image("a", data, "ZYXS", fill_rows=fill_rows)])
    (reader,) = open_file(tmp_path / "a.lif", Options())
    reader.check()
    assert (reader.info.axes, reader.info.colours) == ("ZYXC", "RGB")
    regions_agree(reader, data[..., ::-1])  # blue comes first in the file
    stack = open_images(tmp_path / "a.lif", by_chunk=True).image_stacks[0]
    found = stack.extract_patch(0, None, (0, 3, 5), (2, 30, 40))
    assert np.array_equal(found, data[:, 3:33, 5:45, ::-1].transpose(3, 0, 1, 2))


def test_series_are_scenes(tmp_path, capsys):
    stage = '<Attachment Name="TileScanInfo"><Tile PosX="0.001" PosY="0.002"/></Attachment>'
    first, second, third = numbered("CYX"), numbered("CYX", Y=20), numbered("CYX", X=9)
    inner = image("a/b", third, "CYX")
    outer = image("well", second, "CYX", children=inner[0], extra=stage)
    path = tmp_path / "a.lif"
    write_lif(path, [image("first", first, "CYX"), outer, (("", *inner[1:]))])
    with pytest.raises(ValueError, match=r"a\.lif has 3 scenes \(0 \(first\), 1 \(well\), 2"):
        open_images(path)
    for by_chunk in (False, True):
        found = open_images(path, scene="all", by_chunk=by_chunk)
        for i, data in enumerate((first, second, third)):
            assert np.array_equal(found.extract_patch(i, 0, (0, 0), data.shape[1:]), data)
    assert np.array_equal(open_images(path, scene="well").image_stacks[0].data[0], second)
    (reader,) = open_file(path, Options(scene="well"))
    assert reader.info.path == f"{path}, well"
    assert reader.info.calibration.origin == {"X": 1000.0, "Y": 2000.0}
    assert main(["info", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "2×37×53" in shown
    assert f"{path}, well" in shown


@pytest.mark.parametrize(("axes", "named"), [("MYX", r"M \(tiles of a mosaic"), ("λYX", "λ"),
                                             ("AZYX", r"A \(rotation\)")])  # fmt: skip
def test_axes_without_a_place(tmp_path, axes, named):
    data = numbered("TZYX"[-len(axes) :], Z=3)
    write_lif(tmp_path / "a.lif", [image("a", data, axes)])
    given = "S" + axes[1:]
    with pytest.raises(ValueError, match=rf"a\.lif has axes.*{named}.*axes='{given}' takes them"):
        open_images(tmp_path / "a.lif")
    stack = open_images(tmp_path / "a.lif", given).image_stacks[0]
    assert np.array_equal(stack.data.reshape(data.shape), data)


def test_scans_without_rows(tmp_path):
    write_lif(tmp_path / "a.lif", [image("a", numbered("TX"), "TX")])
    with pytest.raises(ValueError, match=r"a\.lif: axes must contain Y and X, found 'TX'"):
        open_images(tmp_path / "a.lif")


def test_what_is_refused(tmp_path):
    data = numbered("CYX")
    path = tmp_path / "a.lif"
    for n in (3, 60, 1500, -1):
        write_lif(path, [image("a", data, "CYX")])
        path.write_bytes(path.read_bytes()[:n])
        with pytest.raises(ValueError, match=r"a\.lif.* cannot be read as a LIF"):
            open_images(path)
    with pytest.raises(ValueError, match=r"a\.lif.*it ends 1 bytes too early"):
        open_images(path)
    twice = [image("same", data, "CYX"), image("same", data, "CYX")]
    write_lif(path, twice)
    with pytest.raises(ValueError, match=r"a\.lif has several images of one name"):
        open_images(path)
    described = image("a", data, "CYX")
    flim = (
        described[0]
        .replace("Image>", "SingleMoleculeDetection>")
        .replace("<SingleMoleculeDetection>", '<SingleMoleculeDetection IsImage="true">', 1)
    )
    write_lif(path, [(flim, *described[1:])])
    with pytest.raises(ValueError, match=r"a\.lif holds photons by time \(FLIM\)"):
        open_images(path)
    write_lif(path, [], xml='<LMSDataContainerHeader Version="2"><Element Name="a"/>'
                            "</LMSDataContainerHeader>")  # fmt: skip
    with pytest.raises(ValueError, match=r"a\.lif has no image"):
        open_images(path)
    xml = described[0]
    write_lif(path, [(xml, "elsewhere", described[2])])
    with pytest.raises(ValueError, match=r"a\.lif cannot be read as a LIF: .*MemBlock_a"):
        open_images(path)


def test_cut_short_before_an_image(tmp_path):
    described = [image(name, numbered("YX"), "YX") for name in "ab"]
    write_lif(tmp_path / "a.lif", described)
    content = (tmp_path / "a.lif").read_bytes()
    (tmp_path / "a.lif").write_bytes(content[: -len(described[1][2]) - 20])
    with pytest.raises(ValueError, match=r"a\.lif, b .*not in this file, which may be cut short"):
        list(open_file(tmp_path / "a.lif", Options(scene="all")))


def test_lof(tmp_path):
    data = numbered("ZCYX")
    write_lof(tmp_path / "a.lof", image("a", data, "ZCYX"))
    stack = open_images(tmp_path / "a.lof").image_stacks[0]
    assert np.array_equal(stack.data[0], data.transpose(1, 0, 2, 3))


def test_name_that_says_something_else(tmp_path):
    write_lif(tmp_path / "a", [image("a", numbered("YX"), "YX")])
    assert open_images(tmp_path / "a").shapes == [(1, 1, 37, 53)]
    (tmp_path / "a").rename(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"it is a LIF: rename it, so that it ends in \.lif"):
        open_images(tmp_path / "a.tif")
