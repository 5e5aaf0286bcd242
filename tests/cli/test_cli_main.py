import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gpu_patch
from gpu_patch.cli import main
from gpu_patch.images import budget


def test_without_arguments_it_prints_help(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert all(command in out for command in ("demo", "preview", "bench"))


def test_version(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"gpu_patch {gpu_patch.__version__}\n"


def test_runs_as_a_module():
    command = [sys.executable, "-m", "gpu_patch", "nosuch"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.startswith("gpu-patch: error: ")
    assert "'nosuch'" in result.stderr


def test_importing_it_imports_no_optional_package():
    code = (
        "import sys, gpu_patch.cli, gpu_patch.__main__\n"
        "names = {name.partition('.')[0] for name in sys.modules}\n"
        "print(sorted(names & {'matplotlib', 'tifffile', 'tqdm', 'PIL', 'careamics', 'torch'}))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "[]\n"), result.stderr


@pytest.mark.parametrize(
    ("arguments", "missing", "words"),
    [
        (["preview", "grey.png"], "matplotlib", ["preview needs matplotlib", "gpu_patch[cli]"]),
        (["preview", "pair.tif"], "tifffile", ["needs tifffile", "gpu_patch[io]"]),
        (["preview", "grey.png"], "PIL", ["needs Pillow", "gpu_patch[io]"]),
        (["demo"], "tqdm", ["demo needs tqdm", "gpu_patch[cli]"]),
        (["demo"], "tifffile", ["demo needs tifffile", "gpu_patch[cli]"]),
    ],
)
def test_missing_package(arguments, missing, words, files, monkeypatch, capsys):
    # needs Pillow itself, and may not have been imported by other tests yet
    import matplotlib.figure  # noqa: F401

    for name in [missing, *(name for name in sys.modules if name.startswith(f"{missing}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, f"{missing}.figure", None)
    assert_fails(arguments, words, capsys)
    assert not (files / "gpu-patch-demo").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("nosuch", ["'nosuch'", "preview"]),
        ("inof", ["one of demo, preview, info, ", "'inof': did you mean info?"]),
        ("info --bogus", ["--bogus (see gpu-patch info --help)"]),
        ("preview grey.png --axis YX", ["--axis YX: did you mean --axes? (see gpu-patch preview"]),
        ("preview *.none", ["IMAGE", "no file matches '*.none'"]),
        ("preview grey.png --mode pared", ["'pared': did you mean paired?"]),
        ("preview grey.png --mode I", ["--mode", "2 channels or more"]),
        ("preview grey.png --mode iii", ["--mode paired needs"]),
        ("preview grey.png --mode basic --target unknown.tif", [": --target-axes ZYX or"]),
        ("preview", ["IMAGE", "required"]),
        ("preview grey.png --nosuch", ["--nosuch"]),
        ("preview nosuch.png", ["IMAGE", "nosuch.png", "No such file"]),
        ("preview folder", ["IMAGE", "the folder 'folder' has no image in it"]),
        ("preview broken.tif", ["IMAGE", "broken.tif", "cannot be read"]),
        ("preview text.png", ["IMAGE", "text.png", "cannot be read"]),
        (
            "preview unknown.tif",
            ["IMAGE", "unknown.tif", "(2, 50, 60)", ": --axes ZYX or TYX"],
        ),
        ("preview grey.png --axes CYX", ["grey.png", "'CYX'", "(100, 120)"]),
        ("preview grey.png --axes YQ", ["grey.png", "'STCZYX'", "'YQ'"]),
        ("preview grey.png --mode magic", ["--mode", "'magic'", "independent"]),
        ("preview grey.png --mode multichannel", ["--mode", "2 channels or more", "use pred"]),
        ("preview grey.png --mode independent", ["--mode", "two or more", "grey.png"]),
        ("preview grey.png pair.tif --mode independent", ["--mode", "pair.tif", "with 2"]),
        ("preview colour.png --mode pred", ["--mode", "1 channel", "colour.png", "with 3"]),
        ("preview colour.png --mode paired --target grey.png", ["--mode", "1 channel"]),
        ("preview grey.png --mode paired", ["--target", "paired", "found none"]),
        ("preview pair.tif --mode I --target grey.png", ["--target", "paired and basic"]),
        ("preview [gs]*.png --mode II", ["--mode", "IMAGE per structure", "grey.png"]),
        (
            "preview grey.png --mode paired --target small.png",
            ["--target: 'small.png' must have the size of 'grey.png'", "(100, 120)", "(80, 120)"],
        ),
        ("preview grey.png --mode basic --target small.png", ["--target", "(80, 120)"]),
        (
            "preview grey.png --target grey.png grey.png",
            ["--target", "as IMAGE, 1: 'grey.png'; found 2: 'grey.png', 'grey.png'"],
        ),
        ("preview grey.png colour.png", ["channels: 'grey.png' has 1, 'colour.png' has 3"]),
        ("preview grey.png --patch 32", ["--patch 32"]),
        ("preview grey.png --out=", ["argument --out: must be a path, found ''"]),
        ("demo --out=", ["argument --out: must be a path, found ''"]),
        ("preview ftp://plate/a.zarr", ["IMAGE", "this machine", "'ftp://plate/a.zarr'"]),
        ("preview grey.png --mode basic --target nosuch.tif", ["--target", "nosuch.tif"]),
        ("preview pair.tif volume.tif", ["IMAGE", "spatial axes"]),
        ("preview grey.png --patch-size 0", ["--patch-size", "at least 1", "'0'"]),
        ("preview grey.png --patch-size 8,x", ["--patch-size", "'8,x'"]),
        ("preview grey.png --patch-size 4,8,8", ["--patch-size", "Y,X", "(100, 120)", "4,8,8"]),
        ("preview volume.tif --patch-size 8,8", ["--patch-size", "Z,Y,X", "(12, 70, 80)"]),
        ("preview grey.png --scales 0", ["--scales", "at least 1", "at most 8", "'0'"]),
        ("preview grey.png --scales 9", ["--scales", "at most 8", "'9'"]),
        ("preview grey.png --samples many", ["--samples", "at least 1", "'many'"]),
        ("preview grey.png --seed -1", ["--seed", "at least 0", "'-1'"]),
        ("preview grey.png --padding zero", ["--padding", "'zero'", "reflect"]),
        ("preview grey.png --out nosuch/a.png", ["--out", "nosuch"]),
        ("preview grey.png --out folder", ["--out", "folder"]),
        ("preview grey.png --out a.xyz", ["--out", ".png", "'a.xyz'"]),
        ("demo --size 3", ["--size", "at least 16", "'3'"]),
        ("demo --batch-size 0", ["--batch-size", "at least 1", "'0'"]),
        ("demo --out grey.png", ["--out", "grey.png", "must be a folder"]),
        ("bench --constructors magic", ["--constructors", "'magic'", "multichannel"]),
        ("bench --scales 0", ["--scales", "at least 1", "'0'"]),
        ("bench --device toaster", ["device", "'toaster'", "'cpu'"]),
        ("bench --json nosuch/a.json", ["--json", "nosuch"]),
    ],
)
def test_error_is_one_line_that_says_what_would_be_right(arguments, words, files, capsys, caplog):
    assert_fails(arguments.split(), words, capsys)
    assert not caplog.records  # they would be lines on stderr too


def assert_fails(arguments, words, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("gpu-patch: error: ")
    assert error.count("\n") == 1
    for word in words:
        assert word in error, error


@pytest.mark.parametrize("command", ["info", "preview", "demo", "bench", "train-demo", "predict"])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: gpu-patch {command} ")


def test_nothing_can_be_written(monkeypatch, files, capsys):
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).name != "folder")
    for arguments in ("preview grey.png --out folder/a.png", "demo --out folder/new"):
        assert_fails(arguments.split(), ["argument --out: nothing can be written to"], capsys)


def test_image_that_does_not_fit(monkeypatch, files, capsys):
    monkeypatch.setattr(budget, "free_host_bytes", lambda: 1000)
    assert_fails(["preview", "pair.tif"], ["IMAGE: 'pair.tif' does not fit in memory"], capsys)


@pytest.mark.filterwarnings("default")
def test_users_are_warned_in_one_line(files, capsys):
    np.save("a.npy", np.full((64, 64), 2**25, np.uint32))
    assert main(["preview", "a.npy", "--axes", "YX"]) == 0
    assert capsys.readouterr().err == (
        "gpu-patch: warning: a.npy: uint32 data with values beyond 2^24 are kept as float32 and "
        "lose precision: near 33554432 only multiples of 2 are kept, 1 of 2 grey levels are "
        "lost. Give smaller values, such as labels numbered from 1 on, or labels=True in Python, "
        "which keeps labels as they are\n"
    )
