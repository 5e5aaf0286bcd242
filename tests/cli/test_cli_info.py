"""gpu-patch info: what files hold, before anything is loaded."""

import json
import sys

import numpy as np
import pytest

from gpu_patch import residency
from gpu_patch.cli import main
from gpu_patch.images.readers import ImageReader


@pytest.fixture(autouse=True)
def _nothing_is_loaded(monkeypatch):
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")
    monkeypatch.setattr(ImageReader, "read", lambda *_: pytest.fail("it read pixels"))
    monkeypatch.setattr(ImageReader, "select", lambda *_: pytest.fail("it read pixels"))
    yield
    assert not residency().stacks


def test_table(files, capsys):
    assert main(["info", "pair.tif", "grey.png", "volume.tif"]) == 0
    head, pair, grey, volume, together, total = capsys.readouterr().out.splitlines()
    assert head.split("  ")[0] == "shape"
    assert pair.split() == [
        *("2×100×120", "CYX", "uint16", "48.0", "kB", "1×1×120", "–", "yes"),
        *("ImageJ", "TIFF", "pair.tif"),
    ]
    assert grey.split()[:3] == ["100×120", "YX", "uint8"]
    assert grey.endswith("PNG          grey.png")
    assert volume.split()[:5] == ["12×2×70×80", "ZCYX", "uint16", "268.8", "kB"]
    assert together == (
        "not to be opened together: images must agree in spatial axes: 'pair.tif' has 2, "
        "'volume.tif' has 3. Give those alone that belong together"
    )
    assert total.startswith("images: 3, together 328.8 kB; on cpu they may take ")
    assert total.endswith("are free: they fit")


def test_folders_patterns_and_scenes(files, capsys):
    import tifffile

    (files / "folder" / "a.tif").write_bytes((files / "pair.tif").read_bytes())
    tifffile.imwrite("two.tif", np.zeros((9, 8), "u1"))
    tifffile.imwrite("two.tif", np.zeros((7, 6), "f8"), append=True)
    assert main(["info", "folder", "*ey.png", "two.tif"]) == 0
    lines = capsys.readouterr().out.splitlines()[1:-2]
    assert [line.split("  ")[-1].strip() for line in lines] == [
        *("folder/a.tif", "grey.png", "two.tif", "two.tif, series 1"),
    ]
    assert "float64 as float32" in lines[-1]


def test_what_does_not_fit(files, capsys):
    assert main(["info", "pair.tif", "grey.png", "--memory-budget", "50000"]) == 0
    _, pair, _, _, total = capsys.readouterr().out.splitlines()
    assert " yes " in pair
    assert "may take 50.0 kB" in total
    assert total.endswith("they do not fit: open_images keeps them by chunk")
    assert main(["info", "pair.tif", "--memory-budget", "40000"]) == 0
    assert " no " in capsys.readouterr().out.splitlines()[1]


def test_damaged_files_stand_in_the_table_and_fail(files, capsys):
    assert main(["info", "pair.tif", "broken.tif", "nosuch.tif", "*.none", "unknown.tif"]) == 2
    found = capsys.readouterr()
    lines = found.out.splitlines()
    assert lines[1].endswith("pair.tif")
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 4
    assert "broken.tif cannot be read as a TIFF" in errors[0]
    assert "nosuch.tif" in errors[1]
    assert "no file matches '*.none'" in errors[2]
    assert "unknown.tif does not say its axes: its shape is (2, 50, 60)" in errors[3]
    assert found.err == "gpu-patch: error: 4 files cannot be read\n"


def test_json(files, capsys):
    assert main(["info", "series.tif", "broken.tif", "--json", "--memory-budget", "0.5"]) == 2
    found = json.loads(capsys.readouterr().out)
    (image,) = found["images"]
    assert image == {
        "path": "series.tif",
        "format": "ImageJ TIFF",
        "shape": [3, 2, 100, 120],
        "axes": "TCYX",
        "dtype": "uint16",
        "canonical_shape": [3, 2, 100, 120],
        "resident_dtype": "uint16",
        "resident_bytes": 144_000,
        "chunk_shape": [1, 1, 1, 120],
        "physical_sizes": {},
        "origin": {},
        "time_interval": None,
        "fits": True,
    }
    assert list(found["errors"]) == ["broken.tif"]
    assert found["resident_bytes"] == 144_000
    assert found["budget_bytes"] == found["free_bytes"] // 2
    assert (found["device"], found["fits"]) == ("cpu", True)


def test_axes_for_files_that_do_not_say_them(files, capsys):
    assert main(["info", "unknown.tif", "--axes", "ZYX"]) == 0
    assert " ZYX " in capsys.readouterr().out


def test_truncated_files(files, capsys, caplog):
    """What reading would find too short is found by its length."""
    import tifffile

    pixels = np.random.default_rng(0).integers(0, 999, (70, 80), np.uint16)
    np.save("plain.npy", pixels)
    tifffile.imwrite("plain.tif", pixels, metadata=None)
    tifffile.imwrite("tiled.tif", pixels, tile=(32, 32), compression="zlib", metadata=None)
    whole = ["plain.npy", "plain.tif", "tiled.tif"]
    assert main(["info", *whole, "--axes", "YX"]) == 0
    for name in whole:
        path = files / name
        path.write_bytes(path.read_bytes()[:-10])
    capsys.readouterr()
    assert main(["info", *whole, "--axes", "YX"]) == 2
    errors = capsys.readouterr().out.splitlines()
    assert errors == [
        "error: plain.npy cannot be read as a NumPy file: it ends 10 bytes too early",
        "error: plain.tif cannot be read as a TIFF: it ends 10 bytes too early",
        "error: tiled.tif cannot be read as a TIFF: strip or tile 8 of page 0 ends behind the file",
    ]
    assert not caplog.records


def test_nothing_readable_says_nothing_of_memory(files, capsys):
    assert main(["info", "nosuch.tif", "text.png"]) == 2
    shown = capsys.readouterr()
    assert [line.partition(":")[0] for line in shown.out.splitlines()] == ["error", "error"]
    assert shown.err == "gpu-patch: error: 2 files cannot be read\n"


def test_missing_package_names_the_file(files, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    assert main(["info", "pair.tif"]) == 2
    assert "error: pair.tif: reading TIFF files needs tifffile" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["info", "a", "--memory-budget", "much"], ["--memory-budget", "'much'", "0.5"]),
        (["info", "a", "--memory-budget", "1.5"], ["--memory-budget", "1.5"]),
        (["info", "a", "--level", "x"], ["--level", "'x'"]),
        (["info", "a", "--device", "toaster"], ["device", "'toaster'"]),
    ],
)
def test_wrong_arguments(files, arguments, words, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert all(word in error for word in words)


def test_colours_and_alpha(files, capsys):
    from PIL import Image

    pixels = np.arange(9 * 8 * 4, dtype=np.uint8).reshape(9, 8, 4)
    for name in ("a.png", "b.png"):
        Image.fromarray(pixels).save(name)
    assert main(["info", "colour.png", "a.png", "b.png"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[1:4]] == [
        ["90×110×3", "YXC", "(RGB)"], ["9×8×3", "YXC", "(RGB)"], ["9×8×3", "YXC", "(RGB)"],
    ]  # fmt: skip
    assert lines[4] == (
        "note: a.png and 1 more: an alpha channel is left out: --keep-alpha keeps it"
    )
    assert main(["info", "a.png", "--keep-alpha", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["images"][0]["colours"], found["remarks"]) == ("RGBA", [])
    assert main(["info", "--keep-alpha"]) == 2
    assert "--keep-alpha is about files" in capsys.readouterr().err


def test_what_is_missing_is_counted(files, capsys):
    import tifffile
    import zarr

    array = zarr.create_array(
        "a.zarr", shape=(3, 40, 50), chunks=(1, 20, 30), dtype="u2", dimension_names=list("tyx")
    )
    array[0] = array[2] = 1
    array[1, 20:] = 1
    assert main(["info", "a.zarr", "pair.tif"]) == 2
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("3×40×50    TYX")
    assert lines[3] == (
        "error: a.zarr: 2 of 12 chunks were never written, the first is c/1/0/0: "
        "--allow-missing-chunks reads the rest"
    )
    tifffile.imwrite("a.tif", np.ones((64, 64), "u1"), tile=(16, 32))
    with tifffile.TiffFile("a.tif", mode="r+") as tiff:
        counts = tiff.pages[0].tags["TileByteCounts"]
        counts.overwrite([0 if i in (3, 5) else n for i, n in enumerate(counts.value)])
    assert main(["info", "a.tif"]) == 2
    said = "a.tif: 2 of 8 strips or tiles were never written, the first is 3 of page 0"
    assert f"error: {said}: --allow" in capsys.readouterr().out
    assert main(["info", "a.tif", "--allow-missing-chunks"]) == 0
    assert f"note: {said}\n" in capsys.readouterr().out


def test_stacks_of_one_slice(files, capsys):
    import tifffile

    for name, n, height in (("a", 1, 40), ("b", 3, 40), ("c", 3, 41)):
        data = np.zeros((n, height, 50), "u1")
        tifffile.imwrite(f"{name}.ome.tif", data, ome=True, metadata={"axes": "ZYX"})
        tifffile.imwrite(f"{name}.ij.tif", data, imagej=True, metadata={"axes": "ZYX"})
    assert main(["info", "a.ome.tif", "b.ome.tif"]) == 0
    assert "images of one slice are stacks of it\n" in capsys.readouterr().out
    assert main(["info", "a.ij.tif", "b.ij.tif"]) == 0
    assert "alone that belong together, or say --axes ZYX, where" in capsys.readouterr().out
    assert main(["info", "a.ij.tif", "b.ij.tif", "--axes", "zyx"]) == 0
    assert "together:" not in capsys.readouterr().out
