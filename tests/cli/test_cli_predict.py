"""gpu-patch predict: models from files over images from files."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpu_patch import open_images, predict
from gpu_patch.cli import main
from gpu_patch.feed import Normalization

TILES = ["--tile-size", "32", "--batch-size", "5"]

try:
    import torch
except ImportError:

    def test_it_says_what_it_needs(files, capsys):
        assert main(["predict", "grey.png", "--model", "a.pt", "--out", "out"]) == 2
        error = capsys.readouterr().err
        assert "needs torch: pip install 'gpu_patch[torch]'" in error

    pytest.skip("the rest needs PyTorch", allow_module_level=True)

pytest.importorskip("zarr")
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


class Halving(torch.nn.Module):
    """Takes 2 channels and sizes that are multiples of 4, and gives the first and their sum."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        coarse = (
            torch.nn.functional.avg_pool2d(x, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
        )
        total = torch.nn.functional.conv2d(x + 0 * coarse, torch.ones(1, 2, 1, 1))
        return torch.cat([x[:, :1], total], 1) * self.weight


@pytest.fixture
def models(files, monkeypatch):
    """Files of models, beside the images."""
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    example = torch.zeros(2, 2, 32, 32)
    torch.jit.trace(Halving(), example).save("model.pt")
    batch = torch.export.Dim("batch")
    shapes = ({0: batch},)
    program = torch.export.export(Halving(), (example,), dynamic_shapes=shapes)
    torch.export.save(program, "model.pt2")
    torch.export.save(torch.export.export(Halving(), (example,)), "fixed.pt2")
    torch.save(Halving().state_dict(), "weights.pt")
    Path("text.pt2").write_text("no model")
    Normalization.mean_std(100, 20, [1, 2, 3], [1, 1, 1]).save("three.json")
    Path("images").mkdir()
    shutil.copy("pair.tif", "images")
    return files


def run(*arguments):
    return main(["predict", *map(str, arguments)])


def read(path):
    return open_images(path, device="cpu").image_stacks[0].data


@pytest.mark.parametrize("model", ["model.pt", "model.pt2"])
def test_channels_of_images(model, models, capsys):
    assert run("pair.tif", "--model", model, "--out", "out", *TILES) == 0
    pixels = read("pair.tif").astype(np.float32)
    found = read("out/pair.ome.zarr")
    np.testing.assert_array_equal(found[:, 0], pixels[:, 0])
    np.testing.assert_array_equal(found[:, 1], pixels.sum(axis=1))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "read     pair.tif: shape (2, 100, 120), axes CYX, uint16"
    assert lines[1].startswith("tiles    20 in ")
    assert lines[1].endswith(" tiles/s")
    assert lines[2] == "written  out/pair.ome.zarr"
    assert lines[3].startswith("picture  out/prediction.png (")


def test_tiles_that_slide(models, capsys):
    asked = ["predict", "pair.tif", "--model", "model.pt", *TILES, "--overlaps", "8"]
    slide = ["--tiling", "switi", "--n-draws", "4", "--std", "--out", "slid"]
    assert main([*asked, *slide]) == 0
    shown = capsys.readouterr().out
    assert "slid/pair.ome.zarr" in shown
    assert "slid/pair_std.ome.zarr" in shown
    images = open_images("pair.tif", device="cpu")
    model = torch.jit.load("model.pt")
    found = predict(
        images,
        model,
        tile_size=(32, 32),
        overlaps=(8, 8),
        tiling="switi",
        stride=(12, 12),
        std=True,
        progress=False,
    )
    for name, expected in (("pair", found.images[0]), ("pair_std", found.std[0])):
        written = open_images(f"slid/{name}.ome.zarr", device="cpu").image_stacks[0].data
        np.testing.assert_allclose(np.asarray(written)[0], expected, atol=1e-3)
    assert main([*asked, "--n-draws", "4", "--out", "other"]) == 2
    assert "--n-draws needs --tiling switi" in capsys.readouterr().err


@pytest.mark.filterwarnings("default::UserWarning")
def test_answers(models, capsys):
    asked = ["pair.tif", "--model", "model.pt", *TILES]
    assert run(*asked, "--out", "labels", "--reduce", "argmax") == 0
    pixels = read("pair.tif").astype(np.float32)
    labels = read("labels/pair.ome.zarr")
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels[:, 0], pixels[:, 1] > 0)
    scaled = ["--channels", "1", "--dtype", "uint16", "--scale-factor", "4", "--add-offset=-50"]
    assert run(*asked, "--out", "scaled", *scaled) == 0
    found = read("scaled/pair.ome.zarr")[:, 0]
    np.testing.assert_array_equal(found, np.rint((pixels.sum(axis=1) + 50) / 4))
    samples = ["--n-samples", "2", "--reduce", "0,0.5"]
    assert run(*asked, "--out", "quantiles", *samples) == 0
    found = read("quantiles/pair.ome.zarr")
    np.testing.assert_array_equal(found[:, :2], pixels[:, [0, 0]])
    capsys.readouterr()
    for wrong, words in (
        (["--reduce", "max"], "--reduce: must be argmax, or quantiles"),
        (["--reduce", "0.5"], "--n-samples of at least 2"),
        (["--channels", "a"], "--channels: must be whole numbers, such as 0,2"),
        (["--channels", "2"], "--channels[0] is 2, but the model returns 2 channels"),
        (["--add-offset", "1"], "--add-offset needs --dtype"),
    ):
        with contextlib.suppress(SystemExit):
            assert run(*asked, "--out", "wrong", *wrong) == 2
        assert words in capsys.readouterr().err


def test_context_normalisation_samples_and_a_file(models, capsys):
    Normalization.mean_std(100, 20).save("normalization.json")
    options = ["--scales", 2, "--padding", "wrap", "--blend", "hann", "--n-samples", 2,
               "--normalization", "normalization.json", "--dtype", "uint16",
               "--overlaps", "8"]  # fmt: skip
    out = Path("results") / "grey.ome.tif"
    assert run("grey.png", "--model", "model.pt", "--out", out, *TILES, *options) == 0
    found = read(out)
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found[:, 0], read("grey.png")[:, 0])
    assert (read("results/grey_std.ome.tif") == 0).all()
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("written")] == [
        "written  results/grey.ome.tif",
        "written  results/grey_std.ome.tif",
    ]
    with Image.open("results/grey.ome.tif_prediction.png") as picture:
        width, height = picture.size
    assert width > 5 * 300
    assert height > 300


def test_pictures_are_of_one_result_and_replace_nothing(models, capsys):
    common = ["pair.tif", "--model", "model.pt", *TILES]

    def picture(*arguments):
        assert run(*common, *arguments) == 0
        lines = capsys.readouterr().out.splitlines()
        (line,) = (line for line in lines if line.startswith("picture"))
        return line.split()[1]

    seen = {picture("--out", name) for name in ("a.ome.zarr", "a.ome.tif", "a.npy", "a.zarr")}
    assert seen == {f"a.{end}_prediction.png" for end in ("ome.zarr", "ome.tif", "npy", "zarr")}
    # beside somebody's own file
    Path("out").mkdir()
    Path("out/prediction.png").write_text("mine")
    assert picture("--out", "out") == "out/prediction_1.png"
    assert picture("--out", "out", "--resume") == "out/prediction_2.png"
    assert Path("out/prediction.png").read_text() == "mine"
    assert picture("--out", "out", "--overwrite") == "out/prediction.png"
    assert Path("out/prediction.png").read_bytes().startswith(b"\x89PNG")
    Path("there.png").write_text("mine")
    assert run(*common, "--out", "new", "--picture", "there.png") == 2
    assert "argument --picture: 'there.png' is there already" in capsys.readouterr().err
    assert not Path("new").exists()
    assert Path("there.png").read_text() == "mine"
    assert picture("--out", "new", "--picture", "there.png", "--overwrite") == "there.png"


def test_no_normalization_is_said(models, capsys):
    Normalization.mean_std(100, 20).save("normalization.json")
    note = "note     no --normalization: the model got the values of the images as they are"
    assert run("pair.tif", "--model", "model.pt", "--out", "a", *TILES) == 0
    assert note in capsys.readouterr().out.splitlines()
    given = ["--normalization", "normalization.json", "--overwrite"]
    assert run("pair.tif", "--model", "model.pt", "--out", "a", *TILES, *given) == 0
    assert "note" not in capsys.readouterr().out


@pytest.mark.parametrize("format", ["npy", "ome-tiff", "ome-zarr"])
def test_several_images_and_their_picture(format, models):
    arguments = ["series.tif", "pair.tif", "--model", "model.pt", "--out", "out", *TILES]
    assert run(*arguments, "--format", format, "--picture", "seen.png") == 0
    assert Path("seen.png").exists()
    assert len(list(Path("out").iterdir())) == 2
    if format == "npy":
        assert np.load("out/series.npy").shape == (3, 2, 100, 120)


@pytest.mark.parametrize("durable", [False, True])
def test_results_are_flushed_to_the_disk_on_request(models, monkeypatch, durable):
    flushed = []
    monkeypatch.setattr(os, "fsync", flushed.append)
    arguments = ["pair.tif", "--model", "model.pt", "--out", "out.npy", *TILES]
    assert run(*arguments, *["--durable"] * durable) == 0
    assert bool(flushed) == durable


def test_volumes(models):
    class Mean(torch.nn.Module):
        def forward(self, x):
            return x.mean(1, keepdim=True)

    torch.jit.trace(Mean(), torch.zeros(1, 2, 8, 32, 32)).save("volume.pt")
    assert run("volume.tif", "--model", "volume.pt", "--out", "out", *TILES) == 0
    found, pixels = read("out/volume.ome.zarr"), read("volume.tif")
    np.testing.assert_allclose(found[:, 0], pixels.mean(axis=1), rtol=1e-6)


def test_results_are_kept_replaced_and_gone_on_with(models, capsys):
    arguments = ["pair.tif", "--model", "model.pt", "--out", "out", *TILES]
    assert run(*arguments) == 0
    assert run(*arguments) == 2
    assert "out/pair.ome.zarr exists: --overwrite replaces it" in capsys.readouterr().err
    assert run(*arguments, "--overwrite") == 0
    capsys.readouterr()
    assert run(*arguments, "--resume") == 0
    assert "tiles    none left to do: all its results are complete\n" in capsys.readouterr().out
    # which Python says too, where it is told the same of the model
    digest = hashlib.sha256(Path("model.pt").read_bytes()).hexdigest()
    tiles = {"tile_size": (32, 32), "overlaps": (8, 8), "model_id": f"sha256 {digest}"}
    images = open_images("pair.tif", device="cpu")
    predict(images, torch.jit.load("model.pt"), **tiles, out="out", resume=True)
    torch.jit.script(Halving().eval()).save("model.pt")  # other code, the same weights
    assert run(*arguments, "--resume") == 2
    assert f"but its --model is another one (sha256 {digest}; now" in capsys.readouterr().err
    torch.jit.trace(Halving(), torch.zeros(2, 2, 32, 32)).save("model.pt")
    assert run(*arguments, "--resume", "--overwrite") == 0
    capsys.readouterr()
    assert run(*arguments, "--resume", "--blend", "hann", "--dtype", "uint8") == 2
    assert capsys.readouterr().err == (
        "gpu-patch: error: out/pair.ome.zarr is complete, but its --blend is 'crop', that of this "
        "run 'hann', its --dtype is 'float32', that of this run 'uint8'. Give the same to go on; "
        "--overwrite beside --resume makes anew what differs, --overwrite alone everything\n"
    )


def test_what_is_said_of_a_stopped_run_is_true(models, monkeypatch, capsys):
    from gpu_patch.cli.predict.models import Counting

    forward = Counting.forward

    def stopped(at_batch, *arguments):
        """Return what is said of a run of 12 batches, 4 a part; 0 never stops."""
        calls = []

        def stopping(model, batch):
            calls.append(batch)
            if len(calls) == at_batch:
                raise KeyboardInterrupt
            return forward(model, batch)

        monkeypatch.setattr(Counting, "forward", stopping)
        status = run("series.tif", "--model", "model.pt", "--out", "out", *TILES, *arguments)
        assert status == (130 if at_batch else 0)
        return [s for s in capsys.readouterr().out.splitlines() if s.startswith("stopped")]

    nothing = ["stopped  before anything was written: the same command begins anew"]
    assert stopped(1) == nothing
    assert stopped(1, "--resume") == nothing
    assert stopped(11) == ["stopped  --resume goes on with what is written"]
    assert stopped(1, "--resume") == ["stopped  --resume goes on with what is written"]
    assert stopped(0, "--resume") == []
    # what was there before is no part of another result
    another = ["--overwrite", "--overlaps", "10"]
    assert stopped(1, *another) == nothing
    assert stopped(11, *another) == ["stopped  --resume --overwrite goes on with what is written"]
    assert stopped(1, "--format", "npy") == []


@pytest.mark.filterwarnings("default::UserWarning")
def test_modes_are_those_that_a_model_was_saved_in(models, capsys):
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 1, 1), torch.nn.Dropout(0.5))
    torch.jit.script(module).save("training.pt")
    module.eval()[1].train()
    torch.jit.script(module).save("dropout.pt")
    call = ["images/pair.tif", *TILES, "--n-samples", "3", "--out", "out.npy", "--overwrite"]

    def deviates(*arguments):
        assert run(*call, *arguments) == 0
        return np.load("out_std.npy").any()

    assert deviates("--model", "dropout.pt")
    assert "warning" not in capsys.readouterr().err
    assert deviates("--model", "training.pt", "--training-mode", "keep")
    assert not deviates("--model", "training.pt")
    said = capsys.readouterr().err
    assert "is put into evaluation mode for this run" in said
    assert "Give --training-mode keep to leave it" in said
    assert "the standard deviation is 0" in said
    assert not deviates("--model", "dropout.pt", "--training-mode", "eval")


def test_what_fails_leaves_no_folder(models):
    assert run("grey.png", "--model", "model.pt", "--out", "new/out", *TILES) == 2
    assert not Path("new").exists()
    assert run("grey.png", "--model", "model.pt", "--out", "folder", *TILES) == 2
    assert Path("folder").is_dir()  # it was there before


def test_results_beside_their_picture_are_told_from_it(models, capsys):
    """A folder of results is no folder of images that belong together."""
    assert run("grey.png", "--model", "model.pt", "--out", "out", "--scales", "2", *TILES) == 0
    capsys.readouterr()
    assert main(["preview", "out"]) == 2
    error = capsys.readouterr().err
    assert "agree in channels: 'out/grey.ome.zarr' has 2, 'out/prediction.png' has 3. " in error
    assert "the pattern 'out/*.zarr' to leave others out" in error
    assert main(["preview", "out/*.zarr"]) == 0


def test_memory_budget(models, capsys):
    """Images beyond it are kept by chunk, and nobody is told what only Python can do."""
    arguments = ["series.tif", "--model", "model.pt", *TILES]
    assert run(*arguments, "--out", "one") == 0
    capsys.readouterr()
    assert run(*arguments, "--out", "two", "--memory-budget", "60kB") == 0
    shown = capsys.readouterr()
    assert "kept by chunk in 60.0 kB\n" in shown.out
    assert "warning" not in shown.err
    np.testing.assert_array_equal(read("two/series.ome.zarr"), read("one/series.ome.zarr"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["grey.png", "--model", "model.pt"],
         ["it takes 2 channels, and the images have 1: give others, or --scales 2"]),
        (["grey.png", "--model", "model.pt", "--scales", "3"],
         ["it takes 2 scales, found --scales 3: use --scales 2"]),
        (["pair.tif", "--model", "model.pt", "--tile-size", "30"],
         ["a multiple of 4, found --tile-size 30,30: use --tile-size 32,32"]),
        (["grey.png", "--model", "model.pt", "--tile-size", "30", "--scales", "3"],
         ["a batch of float32 and of the shape (", ", 3, 30, 30), which is (--batch-size or less, "
          "--scales, --tile-size[0], --tile-size[1]): RuntimeError: The size"]),
        (["pair.tif", "--model", "model.pt2", "--tile-size", "64"],
         ["it takes tiles of 32,32 alone, found --tile-size 64,64"]),
        (["pair.tif", "--model", "fixed.pt2"],
         ["it takes batches of 2 alone, found --batch-size 5", "dynamic_shapes"]),
        (["pair.tif", "--model", "weights.pt"], ["neither TorchScript nor", "torch.jit.trace"]),
        (["pair.tif", "--model", "pair.tif"], ["neither TorchScript nor"]),
        (["pair.tif", "--model", "none.pt"], ["there is no file 'none.pt'"]),
        (["none.tif", "--model", "model.pt"], ["none.tif"]),
        (["pair.tif", "--model", "model.pt", "--tile-size", "4,32,32"],
         ["--tile-size", "one number or Y,X"]),
        (["pair.tif", "--model", "model.pt", "--overlaps", "-1"], ["--overlaps", "'-1'"]),
        (["pair.tif", "--model", "model.pt", "--overlaps", "32"],
         ["--overlaps[0] must be smaller than --tile-size[0] = 32"]),
        (["colour.png", "--model", "model.pt", "--scales", "2"],
         ["argument --scales: ", "'colour.png' with 3", "leave --scales out"]),
        (["pair.tif", "--model", "model.pt", "--memory-budget", "8 apples"],
         ["--memory-budget must be bytes, such as 8GB", "'8 apples'"]),
        (["pair.tif", "--model", "model.pt", "--memory-budget", "1kB"], ["raise --memory-budget"]),
        (["pair.tif", "--model", "model.pt", "--normalization", "nix.json"],
         ["argument --normalization: there is no file 'nix.json'"]),
        (["pair.tif", "--model", "model.pt", "--scene", "2"], ["pair.tif has no scene 2"]),
        (["unknown.tif", "--model", "model.pt"], ["give --axes", "--axes ZYX"]),
        (["pair.tif", "--model", "model.pt", "--normalization", "pair.tif"],
         ["pair.tif holds no normalization"]),
        (["pair.tif", "--model", "model.pt", "--format", "npy", "--resume"],
         ["--resume is for the format 'ome-zarr' alone, not for npy"]),
        (["pair.tif", "--model", "model.pt", "--dtype", "int64"], ["--dtype must be one of"]),
        (["pair.tif"], ["--model"]),
        (["pair.tif", "--model", "text.pt2"], ["argument --model: 'text.pt2' is neither"]),
        (["pair.tif", "--model", "model.pt", "--mode", "III"], ["--mode III: did you mean"]),
        (["pair.tif", "--model", "model.pt", "--picture", "a.xyz"], ["--picture", ".png", "a.xyz"]),
        (["pair.tif", "--model", "model.pt", "--normalization", "three.json"],
         ["must have 3 channels, as many as --normalization has", "found 2"]),
        (["images", "--model", "model.pt", "--out", "images"],
         ["argument --out: 'images' is the folder of the images", "'images/predicted'"]),
    ],
)  # fmt: skip
def test_what_does_not_fit(arguments, words, models, capsys):
    assert run(*TILES, "--out", "out", *arguments) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    for word in words:
        assert word in error
    assert not Path("out/pair.ome.zarr").exists()


def test_processes_of_torchrun(models):
    """Together they write what one writes, and one of them alone says so."""
    pytest.importorskip("torch.distributed.run")
    assert run("series.tif", "--model", "model.pt", "--out", "one", *TILES) == 0
    arguments = ["predict", "series.tif", "--model", "model.pt", "--out", "two", *TILES]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "-m", "gpu_patch", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("written  two/series.ome.zarr") == 1
    assert " by the first of 2 processes, " in done.stdout
    np.testing.assert_array_equal(read("two/series.ome.zarr"), read("one/series.ome.zarr"))
