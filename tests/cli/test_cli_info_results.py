"""gpu-patch info RESULT: how much of a prediction is done, and what was asked of it."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from gpu_patch import ImageStack, predict
from gpu_patch.cli import main

pytest.importorskip("zarr")
IMAGE = np.arange(70 * 50, dtype=np.float32).reshape(70, 50)
OPTIONS = {"tile_size": (8, 8), "overlaps": (2, 2), "batch_size": 1, "progress": False}


class StoppedError(Exception):
    """The run is stopped."""


@pytest.fixture(autouse=True)
def _inside(tmp_path, monkeypatch):
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")
    monkeypatch.chdir(tmp_path)


def run(out, *, at_batch=None, then=None, **options):
    """Predict; call `then` when so many batches have been made."""
    calls = []

    def model(batch):
        calls.append(batch)
        if len(calls) == at_batch:
            then()
        return batch

    images = ImageStack.from_array(IMAGE, "YX", device="cpu")
    return predict(images, model, out=out, model_id="one", **OPTIONS, **options)


def stop():
    raise StoppedError


def info(capsys, *arguments):
    assert main(["info", *arguments]) == 0
    return capsys.readouterr().out


def test_a_stopped_prediction(capsys):
    with pytest.raises(StoppedError):
        run("a.ome.zarr", at_batch=60, then=stop, chunk_size=(16, 16), format=None)
    line, settings = info(capsys, "a.ome.zarr").splitlines()
    found = re.fullmatch(
        r"result: .*/a\.ome\.zarr: (\d) of 5 parts written \((\d+) %\), stopped; --resume with "
        "the same settings goes on",
        line,
    )
    done, percent = map(int, found.groups())
    assert 1 <= done <= 2
    assert percent == done * 20
    assert settings.startswith("  made with tile_size 8×8, overlaps 2×2, multiscale_count none, ")
    assert settings.endswith("model one")
    assert info(capsys, ".") == f"{line}\n{settings}\n"  # and its folder


def test_nothing_goes_on_where_no_part_is_written(capsys):
    with pytest.raises(StoppedError):
        run("a.ome.zarr", at_batch=60, then=stop, chunk_size=(16, 16), format=None)
    for part in Path(".a.ome.zarr.partial/units").iterdir():
        part.unlink()
    first = info(capsys, ".").splitlines()[0]
    assert first.endswith("a.ome.zarr: 0 of 5 parts written (0 %), stopped")


def test_what_others_have_noted_is_no_error(capsys):
    Path(".a.ome.zarr.partial").mkdir()
    Path(".a.ome.zarr.partial/about.json").write_text('{"v": 1}')
    (line,) = info(capsys, ".").splitlines()
    assert line.endswith("a.ome.zarr: stopped; files of this format do not tell how much is done")


def test_a_running_prediction(capsys):
    said = []
    run("a.ome.zarr", at_batch=80, then=lambda: said.append(info(capsys, ".")), chunk_size=(16, 16))
    assert re.search(r"[1-4] of 5 parts written .*being written by this process \(\d+ on ", *said)


def test_a_complete_one_is_an_image_too(capsys):
    with pytest.warns(UserWarning, match="deviation is 0"):
        run("a.ome.zarr", n_samples=2)
    head, image, *_ = lines = info(capsys, "a.ome.zarr").splitlines()
    assert head.startswith("shape")
    assert image.endswith("a.ome.zarr")
    assert any(re.fullmatch(r"result: .*/a\.ome\.zarr: complete", line) for line in lines)
    assert any("n_samples 2, std True, dtype float32" in line for line in lines)
    found = json.loads(info(capsys, ".", "--json"))
    assert [image["path"] for image in found["images"]] == ["a.ome.zarr", "a_std.ome.zarr"]
    assert [result["complete"] for result in found["results"]] == [True, True]
    assert found["results"][0]["settings"]["overlaps"] == [2, 2]


def test_what_was_asked_of_values(capsys):
    options = {"dtype": "int16", "scale_factor": 0.5, "channels": [0], "n_samples": 2}
    run("a.ome.zarr", **options, reduce=[0.1, 0.5])
    told = "dtype int16, reduce 0.1 and 0.5, channels 0, scale_factor 0.5, add_offset 0.0"
    assert told in info(capsys, "a.ome.zarr")
    settings = json.loads(info(capsys, "a.ome.zarr", "--json"))["results"][0]["settings"]
    assert settings["reduce"] == [0.1, 0.5]


def test_what_each_tiling_has(capsys):
    run("a.ome.zarr")
    assert "padding_mode reflect, blend crop, tiling inner, n_samples 1" in info(capsys, ".")
    run("a.ome.zarr", tiling="switi", stride=(2, 2), overwrite=True)
    assert "padding_mode reflect, tiling switi, stride 2×2, n_samples 1" in info(capsys, ".")


def test_files_of_one_block_do_not_tell(capsys):
    said = []
    run("a.npy", at_batch=9, then=lambda: said.append(info(capsys, "a.npy")))
    assert "a.npy: being written by this process" in said[0]
    assert "do not tell how much is done" in said[0]
    assert "result" not in info(capsys, "a.npy", "--axes", "YX")


def test_what_another_program_wrote_is_no_result(capsys):
    np.save("b.npy", IMAGE)
    assert "result" not in info(capsys, "b.npy", "--axes", "YX")
    assert main(["info", "nosuch.ome.zarr"]) == 2
    assert "nosuch.ome.zarr" in capsys.readouterr().out
