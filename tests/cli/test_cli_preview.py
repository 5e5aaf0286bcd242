from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import tifffile
from formats import write_ome_zarr
from matplotlib.colors import to_rgb
from PIL import Image
from pixels import distinct

from gpu_patch.cli import main
from gpu_patch.plots import batch, colours

REAL = Path(str(resources.files("skimage"))) / "data"


def picture(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def count(pixels, colour):
    """Number of pixels of exactly one colour."""
    return int((pixels == np.rint(255 * np.array(to_rgb(colour)))).all(axis=-1).sum())


@pytest.mark.parametrize(
    ("name", "patch_size", "shape", "mode"),
    [
        ("cell.png", 64, "(660, 550), axes YX", "pred"),
        ("microaneurysms.png", 16, "(102, 102), axes YX", "pred"),
        ("ihc.png", 64, "(512, 512, 3), axes YXC", "multichannel"),
        ("retina.jpg", 64, "(1411, 1411, 3), axes YXC", "multichannel"),
    ],
)
def test_real_pictures(name, patch_size, shape, mode, tmp_path, capsys):
    out = tmp_path / "picture.png"
    options = ["--patch-size", str(patch_size), "--samples", "3"]
    assert main(["preview", str(REAL / name), "--out", str(out), *options]) == 0
    report = capsys.readouterr().out.splitlines()
    assert shape in report[0]
    assert "uint8" in report[0]
    assert f"mode {mode}" in report[1]
    assert str(out) in report[-1]
    pixels = picture(out)
    assert f"{pixels.shape[1]}×{pixels.shape[0]} pixels" in report[-1]
    assert pixels.shape[1] == 1600
    assert 700 < pixels.shape[0] < 1400
    # boxes in the overview, and frames of the panels
    overview, panels = pixels[:, :620], pixels[:, 650:]
    for scale, colour in enumerate(colours.SCALE_COLOURS[:4]):
        assert count(overview[150:], colour) > 300, scale
        # 3 frames of 4 sides, 3 pixels wide and 100 long at least
        assert count(panels, colour) > 3 * 4 * 3 * 100, scale
    assert count(pixels, colours.SCALE_COLOURS[4]) == 0


@pytest.mark.parametrize(
    "arguments",
    [
        "volume.tif --patch-size 4,32,32 --scales 3",
        "volume.tif --patch-size 16",
        "series.tif --padding wrap",
        "series.tif --padding periodic --samples 12",
        "grey.png small.png --mode independent --scales 2",
        "colour.png --mode independent",
        "grey.png --mode paired --target pair.tif",
        "grey.png --mode basic --target colour.png --target-axes YCX --axes YX",
        "colour.png --mode basic --patch-size 16,48",
        "unknown.tif --axes CYX --patch-size 70 --scales 5 --samples 1",
        "unknown.tif --axes SYX --patch-size 7",
        "pair.tif --mode i",
        "grey.png small.png --mode II --scales 2",
        "pictures",
        "[gs]*.png",
    ],
)
def test_every_mode_draws(arguments, files, capsys):
    if arguments == "pictures":
        Path("pictures").mkdir()
        Path("grey.png").rename("pictures/grey.png")
    if "colour.png --target-axes" in arguments:
        import tifffile

        target = np.arange(100 * 3 * 120, dtype=np.float32).reshape(100, 3, 120)
        tifffile.imwrite("target.tif", target, metadata=None)
        arguments = arguments.replace("colour.png", "target.tif")
    assert main(["preview", *arguments.split()]) == 0, capsys.readouterr().err
    pixels = picture("preview.png")
    assert pixels.shape[1] > 900
    assert count(pixels, colours.SCALE_COLOURS[0]) > 300


def test_a_pattern_is_one_structure(files, capsys):
    for folder in ("nuclei", "filaments"):
        Path(folder).mkdir()
        for name in ("a.png", "b.png"):
            Path(folder, name).write_bytes(Path("grey.png").read_bytes())
    assert main(["preview", "nuclei/*.png", "filaments", "--mode", "II", "--scales", "2"]) == 0
    report = capsys.readouterr().out.splitlines()
    assert report[-2].endswith("mode independent of 2 structures")
    # expanded by the shell they are an argument each
    names = [str(path) for path in sorted(Path().glob("*/[ab].png"))]
    assert main(["preview", *names, "--mode", "II", "--scales", "2"]) == 0
    assert "mode independent of 4 structures" in capsys.readouterr().out


def test_same_seed_same_picture(files):
    for name, seed in (("a.png", "1"), ("b.png", "1"), ("c.png", "2")):
        assert main(["preview", "pair.tif", "--seed", seed, "--out", name]) == 0
    a, b, c = picture("a.png"), picture("b.png"), picture("c.png")
    assert (a == b).all()
    assert a.shape != c.shape or (a != c).any()


def test_vector_formats(files, capsys):
    assert main(["preview", "grey.png", "--out", "a.svg", "--samples", "1"]) == 0
    assert "<svg" in (files / "a.svg").read_text()


def test_a_scene_and_a_level(tmp_path, monkeypatch, capsys):
    tifffile, zarr = pytest.importorskip("tifffile"), pytest.importorskip("zarr")
    monkeypatch.chdir(tmp_path)
    with tifffile.TiffWriter("two.tif") as file:
        file.write(distinct((70, 80), "uint16"), metadata={"axes": "YX"})
        file.write(distinct((50, 60), "uint8"), metadata={"axes": "YX"})
    write_ome_zarr("pyramid.ome.zarr", distinct((120, 140), "uint16"), "YX")
    assert zarr.open_array("pyramid.ome.zarr/1").shape == (60, 70)
    small = ["--patch-size", "16", "--scales", "2"]

    def first_line(*arguments):
        assert main(["preview", *arguments, *small]) == 0
        return capsys.readouterr().out.splitlines()[0]

    assert "(70, 80), axes YX, uint16" in first_line("two.tif", "--scene", "0")
    assert "(50, 60), axes YX, uint8" in first_line("two.tif", "--scene", "1")
    assert "(120, 140), axes YX" in first_line("pyramid.ome.zarr")
    assert "(60, 70), axes YX" in first_line("pyramid.ome.zarr", "--level", "1")
    target = ["--mode", "paired", "--target", "pyramid.ome.zarr", "--level", "1"]
    assert "(60, 70), axes YX" in first_line("pyramid.ome.zarr", *target)
    for wrong, words in ((["two.tif"], "two.tif has 2 scenes (0, 1): say --scene 0"),
                         (["two.tif", "--scene", "2"], "two.tif has no scene 2, only 0, 1"),
                         (["pyramid.ome.zarr", "--level", "2"], "has no level 2")):  # fmt: skip
        assert main(["preview", *wrong]) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.count("\n") == 1


def test_patches_that_are_larger_than_an_image_are_noted(files, capsys):
    assert main(["preview", "small.png", "--patch-size", "90", "--scales", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "note     patches are larger than small.png, 80×120"
    assert main(["preview", "small.png", "--patch-size", "80", "--scales", "2"]) == 0
    assert "note" not in capsys.readouterr().out


def test_channels_that_are_structures_are_of_one_file(files, capsys):
    assert main(["preview", "pair.tif", "--mode", "II", "--scales", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "read     pair.tif: shape (2, 100, 120), axes CYX, uint16"
    assert lines[1].startswith("shown ")


def test_colours_are_called_by_their_names(files, monkeypatch, capsys):
    titles = []
    show = batch._BatchPicture.show_panel
    monkeypatch.setattr(
        batch._BatchPicture,
        "show_panel",
        lambda sheet, row, column, panel: (
            titles.append(panel.title) or show(sheet, row, column, panel)
        ),
    )
    options = ["--patch-size", "16", "--samples", "1"]
    assert main(["preview", "colour.png", "--mode", "basic", *options]) == 0
    assert "axes YXC (RGB), uint8" in capsys.readouterr().out
    assert titles == ["red", "green", "blue"]
    titles.clear()
    assert main(["preview", "colour.png", "--scales", "1", *options]) == 0
    assert [title.partition(",")[0] for title in titles[1:]] == ["red", "green", "blue"]
    titles.clear()
    assert main(["preview", "pair.tif", "--mode", "basic", *options]) == 0
    assert "axes CYX, uint16" in capsys.readouterr().out
    assert titles == ["channel 0", "channel 1"]


@pytest.mark.filterwarnings("default:la.png")
def test_alpha(files, capsys):
    Image.fromarray(np.arange(40 * 50 * 2, dtype=np.uint8).reshape(40, 50, 2)).save("la.png")
    assert main(["preview", "la.png", "--mode", "pred", "--patch-size", "16"]) == 0
    said = "gpu-patch: warning: la.png: an alpha channel is left out: --keep-alpha keeps it\n"
    assert capsys.readouterr().err == said
    options = ["--patch-size", "16", "--keep-alpha", "--mode", "basic"]
    assert main(["preview", "la.png", *options]) == 0
    assert "shape (40, 50, 2), axes YXC, uint8" in capsys.readouterr().out


def test_what_is_not_finite_is_striped_and_counted(files, capsys):
    pixels = np.random.default_rng(1).random((5, 100, 120)).astype(np.float32)
    pixels[0, 30:40, 50:60] = np.nan
    pixels[0, 7, 8] = np.inf
    pixels[3, 99, 0] = -np.inf
    for i in range(4):
        tifffile.imwrite(f"float_{i}.tif", pixels[i], metadata={"axes": "YX"})
    clean = pixels[4]
    tifffile.imwrite("clean.tif", clean, metadata={"axes": "YX"})
    options = ["--patch-size", "24", "--scales", "2", "--out", "marked.png"]
    assert main(["preview", "float_0.tif", *options]) == 0
    marked, lines = picture("marked.png"), capsys.readouterr().out.splitlines()
    assert lines[1] == (
        "note     not finite in float_0.tif, striped in the picture: 101 values (100 NaN, "
        "1 infinite)"
    )
    stripes = [tuple(stripe) for stripe in colours._STRIPES]
    assert all(count(marked, colour) > 100 for colour in stripes)
    assert main(["preview", "clean.tif", *options]) == 0
    assert "finite" not in capsys.readouterr().out
    assert not any(count(picture("marked.png"), colour) for colour in stripes)

    assert main(["preview", "clean.tif", "--target", "float_3.tif", *options]) == 0
    assert "in float_3.tif, striped in the picture: 1 value (1 inf" in capsys.readouterr().out
    for i in (1, 2):
        tifffile.imwrite(f"float_{i}.tif", pixels[3], metadata={"axes": "YX"})
    assert main(["preview", "float_*.tif", *options]) == 0
    assert "note     and some of 2 more images" in capsys.readouterr().out


def test_a_mode_that_was_chosen_for_targets_is_said(files, capsys):
    small = ["--scales", "1", "--patch-size", "16", "--samples", "1"]
    wanted = "note     --target with images of 1 channel is taken for mode paired, MicroSplit III: "
    assert main(["preview", "grey.png", "--target", "grey.png", *small]) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note")]
    assert notes == [wanted + "--mode basic shows what CARE gets"]
    for asked in (["--mode", "basic"], ["--mode", "III"]):
        assert main(["preview", "grey.png", "--target", "grey.png", *small, *asked]) == 0
        assert "note" not in capsys.readouterr().out
    assert main(["preview", "grey.png", *small]) == 0
    assert "note" not in capsys.readouterr().out


def test_patterns_that_the_shell_has_expanded_get_a_hint(files, capsys):
    for folder in ("nuclei", "filaments"):
        Path(folder).mkdir()
        for name in ("a.png", "b.png", "c.png"):
            Path(folder, name).write_bytes(Path("grey.png").read_bytes())
    small = ["--mode", "II", "--scales", "1", "--patch-size", "16", "--samples", "1"]
    expanded = sorted(map(str, Path().glob("*/[abc].png")))
    assert main(["preview", *expanded, *small]) == 0
    hint = "every IMAGE is a structure, 6 of them: quote patterns, as in 'filaments/*.png'"
    assert hint in capsys.readouterr().out
    for images in (["nuclei/*.png", "filaments/*.png"], ["nuclei/a.png", "filaments/a.png"],
                   ["grey.png", "small.png"], ["nuclei", "filaments", "grey.png"]):  # fmt: skip
        assert main(["preview", *images, *small]) == 0
        assert "quote" not in capsys.readouterr().out
