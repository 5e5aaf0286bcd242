"""Every command prints in every encoding, whatever files are called."""

import io
import sys

import numpy as np
import pytest

from gpu_patch.cli import main

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("matplotlib")


def printed(monkeypatch, encoding, *arguments, errors="strict"):
    """Run a command; return its exit status and what it printed, decoded."""
    streams = [io.BytesIO(), io.BytesIO()]
    wrapped = [io.TextIOWrapper(s, encoding, errors=errors, write_through=True) for s in streams]
    with monkeypatch.context() as printing:
        for name, stream in zip(("stdout", "stderr"), wrapped, strict=True):
            printing.setattr(sys, name, stream)
        status = main([str(argument) for argument in arguments])
    assert [stream.errors for stream in wrapped] == [errors] * 2
    return status, *(stream.getvalue().decode(encoding) for stream in streams)


@pytest.fixture
def image(tmp_path, monkeypatch):
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")
    path = tmp_path / "Größe µ ×.ome.tif"
    sizes = {"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm"}
    data = np.arange(2 * 40 * 50, dtype=np.uint16).reshape(2, 40, 50)
    tifffile.imwrite(path, data, ome=True, metadata=sizes, photometric="minisblack")
    return path


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_what_commands_print(image, monkeypatch, encoding):
    run = lambda *arguments: printed(monkeypatch, encoding, *arguments)  # noqa: E731
    status, out, _ = run("info", image)
    assert status == 0
    assert "Gr" in out
    assert ("2x40x50" if encoding == "ascii" else "2×40×50") in out
    assert ("Größe" in out) == (encoding != "ascii")
    assert run("info", "--json", image)[0] == 0
    out = run("preview", image, "--patch-size", "16", "--out", image.with_name("ö.png"))[1]
    assert "picture " in out
    status, out, error = run("info", image.with_name("fehlt ü.tif"))
    assert status == 2
    status, _, error = run("preview", image.with_name("fehlt ü.tif"))
    assert status == 2
    assert "fehlt" in error
    assert run("info")[0] in (0, 1, 2)


@pytest.mark.parametrize(
    "command", ["", "demo", "preview", "info", "predict", "train-demo", "bench"]
)
def test_help(monkeypatch, command):
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    with pytest.raises(SystemExit) as ended:
        printed(monkeypatch, "ascii", *command.split(), "--help")
    assert ended.value.code == 0


def test_names_that_are_no_text(image, monkeypatch):
    image.rename(image.with_name("\udcff.ome.tif"))
    status, out, _ = printed(monkeypatch, "utf-8", "info", image.with_name("\udcff.ome.tif"))
    assert status == 0
    assert r"\udcff.ome.tif" in out


def test_what_the_user_has_said_stays(image, monkeypatch):
    _, out, _ = printed(monkeypatch, "ascii", "info", image, errors="replace")
    assert "2?40?50" in out
