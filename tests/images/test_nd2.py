"""ND2 files, written as nd2 reads them: version 3, with Nikon's lite variant."""

import os

import numpy as np
import pytest
from formats import numbered
from nd2_writer import custom_loop, position_loop, time_loop, write_nd2, z_loop
from whole import regions_agree

from gpu_patch import open_images, predict
from gpu_patch.cli import main
from gpu_patch.images.readers import Options, open_file

pytest.importorskip("nd2")
T, Z = time_loop(3), z_loop(4)


@pytest.fixture(autouse=True)
def _on_the_host(monkeypatch):
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")


def frames_of(data):
    """…CYX as frames: the channels of a pixel are together."""
    *_, c, y, x = data.shape
    return np.ascontiguousarray(np.moveaxis(data.reshape(-1, c, y, x), 1, -1))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(
    ("axes", "loops"), [("CYX", ()), ("ZCYX", (Z,)), ("TZCYX", (T, Z)), ("ZTCYX", (Z, T))]
)
@pytest.mark.parametrize("options", [{}, {"compressed": True}, {"fill": 4}], ids=str)
def test_any_region(tmp_path, axes, loops, dtype, options):
    data = numbered(axes, dtype)
    write_nd2(tmp_path / "a.nd2", frames_of(data), loops, **options)
    (reader,) = open_file(tmp_path / "a.nd2", Options())
    info = reader.info
    assert (info.format, info.axes, info.shape, info.dtype) == ("ND2", axes, data.shape, dtype)
    assert info.chunk_shape == (1,) * len(loops) + (2, 37, 53)
    regions_agree(reader, data)
    reader.close()
    regions_agree(reader, data)
    reader.close()
    expected = {"Y": 0.15, "X": 0.15} | ({"Z": 0.4} if "Z" in axes else {})
    assert info.physical_sizes == pytest.approx(expected)
    assert info.calibration.time_interval == (2.5 if "T" in axes else None)


def test_time_is_what_was_measured_where_nothing_was_planned(tmp_path):
    write_nd2(tmp_path / "a.nd2", frames_of(numbered("TCYX")), (time_loop(3, period=0.0),))
    (reader,) = open_file(tmp_path / "a.nd2", Options())
    assert reader.info.calibration.time_interval == 2.6


@pytest.mark.parametrize("n_components", [2, 4, 5])
def test_components_are_channels(tmp_path, n_components):
    data = numbered("CYX", C=n_components)
    for colours in (1, n_components):
        write_nd2(tmp_path / "a.nd2", frames_of(data), colours=colours)
        (reader,) = open_file(tmp_path / "a.nd2", Options())
        with reader:
            assert np.array_equal(reader.whole(), data)


def test_colours(tmp_path):
    data = numbered("TYXC", np.uint8, C=3)
    write_nd2(tmp_path / "a.nd2", data, (T,), colours=3)
    (reader,) = open_file(tmp_path / "a.nd2", Options())
    assert (reader.info.axes, reader.info.colours) == ("TYXC", "RGB")
    with reader:
        regions_agree(reader, data)
    write_nd2(tmp_path / "a.nd2", np.concatenate([data, data + 1], -1), (T,), colours=3)
    with pytest.raises(ValueError, match=r"a\.nd2 .*S \(colours beside channels\)"):
        open_file(tmp_path / "a.nd2", Options())


@pytest.mark.parametrize("order", [0, 1])
def test_positions_are_scenes(tmp_path, order, capsys):
    axes = ("STCYX", "TSCYX")[order]
    data = numbered(axes)
    loops = [position_loop(["left", "right"]), T]
    write_nd2(tmp_path / "a.nd2", frames_of(data), loops[:: 1 - 2 * order])
    by_position = np.moveaxis(data, axes.index("S"), 0)
    with pytest.raises(ValueError, match=r"a\.nd2 has 2 scenes \(0 \(left\), 1 \(right\)\)"):
        open_images(tmp_path / "a.nd2")
    for by_chunk in (False, True):
        found = open_images(tmp_path / "a.nd2", scene="all", by_chunk=by_chunk)
        for s, t in np.ndindex(2, 3):
            patch = found.extract_patch(s, t, (5, 7), (20, 30))
            assert np.array_equal(patch, by_position[s, t, :, 5:25, 7:37])
    (reader,) = open_file(tmp_path / "a.nd2", Options(scene="right"))
    assert reader.info.calibration.origin == {"X": 100.0, "Y": -5.0, "Z": 3.0}
    assert np.array_equal(
        open_images(tmp_path / "a.nd2", scene=1).image_stacks[0].data, by_position[1]
    )
    assert main(["info", str(tmp_path / "a.nd2")]) == 0
    assert "a.nd2, position 1" in capsys.readouterr().out


def test_frames_that_were_never_recorded(tmp_path, capsys):
    data = numbered("TZCYX") + 1
    path = tmp_path / "a.nd2"
    said = "2 of 12 frames were never written, the first is frame 10"
    write_nd2(path, frames_of(data), (T, Z), recorded=10, lost=(10, 11))
    with pytest.raises(ValueError, match=rf"a\.nd2.*{said}: allow_missing_chunks=True takes zeros"):
        open_images(path)
    expected = data.copy()
    expected[2, 2:] = 0
    for by_chunk in (False, True):
        found = open_images(path, allow_missing_chunks=True, by_chunk=by_chunk)
        patch = found.extract_patch(0, 2, (0, 0, 0), (4, 37, 53))
        assert np.array_equal(patch, expected[2].transpose(1, 0, 2, 3))
    assert main(["info", str(path)]) == 2
    assert said in capsys.readouterr().out
    # what the file counts, but does not have
    write_nd2(path, frames_of(data), (T, Z), lost=(5,))
    with pytest.raises(ValueError, match=r"a\.nd2.*its frame 5 was never written"):
        open_images(path)
    found = open_images(path, allow_missing_chunks=True).image_stacks[0].data
    assert not found[1, :, 1].any()
    assert np.array_equal(found[1, :, 2], data[1, 2])


def test_axes_without_a_place(tmp_path):
    data = numbered("SZCYX")
    write_nd2(tmp_path / "a.nd2", frames_of(data), (custom_loop(2), Z))
    with pytest.raises(ValueError, match=r"CustomLoop \(a loop of the user\).*axes='SZCYX' takes"):
        open_images(tmp_path / "a.nd2")
    stack = open_images(tmp_path / "a.nd2", "SZCYX").image_stacks[0]
    assert np.array_equal(stack.data, data.transpose(0, 2, 1, 3, 4))


def test_frames_beyond_the_axes(tmp_path):
    write_nd2(tmp_path / "a.nd2", frames_of(numbered("TCYX")))
    with pytest.raises(ValueError, match=r"a\.nd2.*it has 3 frames, and says how 1 of them lie"):
        open_images(tmp_path / "a.nd2")


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        (0, "it is empty"),
        (3, "it ends 5 bytes too early"),
        *((keep, "it may be cut short, or damaged") for keep in (39, 50, 112, 5000, -1, -41)),
    ],
)
def test_cut_short(tmp_path, keep, words):
    path = tmp_path / "a.nd2"
    write_nd2(path, frames_of(numbered("TCYX")), (T,))
    os.truncate(path, keep if keep >= 0 else path.stat().st_size + keep)
    with pytest.raises(ValueError, match=rf"a\.nd2 cannot be read as an ND2: .*{words}$"):
        open_images(path)


def test_file_cut_short_while_it_is_open(tmp_path):
    path = tmp_path / "a.nd2"
    write_nd2(path, frames_of(numbered("TCYX", Y=300, X=300)), (T,))
    found = open_images(path, by_chunk=True)
    found.extract_patch(0, 0, (0, 0), (9, 9))
    os.truncate(path, 4096 * 30)
    with pytest.raises(ValueError, match=r"a\.nd2.*(too early|has changed)"):
        found.extract_patch(0, 1, (0, 0), (9, 9))


def test_old_format(tmp_path):
    (tmp_path / "a.nd2").write_bytes(b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(5000))
    with pytest.raises(ValueError, match=r"a\.nd2.*format before 2010, JPEG 2000"):
        open_images(tmp_path / "a.nd2")


def test_prediction_keeps_what_the_file_says(tmp_path):
    data = numbered("TZCYX")
    write_nd2(tmp_path / "a.nd2", frames_of(data), (T, Z))
    images = open_images(tmp_path / "a.nd2", by_chunk=True)
    tiles = {"tile_size": (4, 16, 16), "overlaps": (0, 4, 4), "progress": False}
    predict(images, lambda patches: patches, out=tmp_path / "a.ome.tif", **tiles)
    stack = open_images(tmp_path / "a.ome.tif").image_stacks[0]
    assert np.array_equal(stack.data, data.transpose(0, 2, 1, 3, 4))
    assert stack.physical_sizes == pytest.approx({"Z": 0.4, "Y": 0.15, "X": 0.15})
    assert stack.time_interval == 2.5
