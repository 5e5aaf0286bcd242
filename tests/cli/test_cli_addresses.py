"""Commands on images of servers, given by address; no password is ever shown."""

from __future__ import annotations

import os

import numpy as np
import pytest
from file_server import serving
from formats import numbered, write_ome_zarr

from gpu_patch import open_images, predict
from gpu_patch.cli import main
from gpu_patch.predict.outputs.options import OutputOptions

pytest.importorskip("zarr")
pytest.importorskip("obstore")
pytest.importorskip("matplotlib")

DATA = numbered("TCYX", T=2, C=2, Y=50, X=70)
SECRETS = ("hidden", "hid%64en", "aGlkZGVu", "hush-hush", "key-id-1")


@pytest.fixture(params=["http", "s3"])
def address(request, tmp_path, monkeypatch):
    """An image on a server that lets nobody in without a password."""
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    write_ome_zarr(tmp_path / "served" / "bucket" / "a.zarr", DATA, "TCYX")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with serving(tmp_path / "served") as server:
        server.fault = lambda name: None if server.requests[-1][2].get("authorization") else 401
        if request.param == "http":
            yield server.url.replace("://", "://me:hid%64en@") + "/bucket/a.zarr"
            return
        for name, value in {
            "ENDPOINT_URL": server.url, "ACCESS_KEY_ID": "key-id-1",
            "SECRET_ACCESS_KEY": "hush-hush",
        }.items():  # fmt: skip
            monkeypatch.setenv(f"AWS_{name}", value)
        yield "s3://bucket/a.zarr"


def check_no_secret(folder, *texts):
    written = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    for content in (*written, *(text.encode() for text in texts)):
        assert not [secret for secret in SECRETS if secret.encode() in content]


def test_info_and_preview(address, tmp_path, capsys):
    assert main(["info", address, "--check-values"]) == 0
    assert main(["info", address, "--json"]) == 0
    assert main(["preview", address, "--patch-size", "16", "--out", "shown.svg"]) == 0
    out, error = capsys.readouterr()
    public = address.replace("me:hid%64en@", "")
    assert f"read     {public}: shape (2, 2, 50, 70), axes TCYX, uint16" in out
    assert "values: all are finite, and no sample holds one value alone" in out
    assert "a.zarr" in (tmp_path / "here" / "shown.svg").read_text()
    check_no_secret(tmp_path / "here", out, error)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_predict(address, tmp_path, capsys):
    torch = pytest.importorskip("torch")
    torch.jit.trace(torch.nn.Identity(), torch.zeros(1, 2, 32, 32)).save("model.pt")
    for _ in range(2):  # a second time, with what is there
        options = ["--model", "model.pt", "--tile-size", "32", "--overwrite"]
        assert main(["predict", address, *options, "--out", "out"]) == 0
    assert np.array_equal(open_images("out/a.ome.zarr").image_stacks[0].data, DATA)
    check_no_secret(tmp_path / "here", *capsys.readouterr())


def test_what_a_stopped_run_leaves(address, tmp_path, capsys):
    calls = []

    def failing(tiles):
        calls.append(tiles)
        if len(calls) > 9:  # the first sample is written
            raise KeyboardInterrupt
        return tiles

    images = open_images(address, by_chunk=True)
    asked = {"tile_size": (16, 16), "overlaps": (4, 4), "batch_size": 4, "progress": False}
    asked |= {"out": "out", "model_id": "m", "chunk_size": (16, 16)}
    with pytest.raises(KeyboardInterrupt):
        predict(images, failing, **asked)
    assert main(["info", "out/a.ome.zarr"]) == 0
    said = capsys.readouterr().out
    assert "parts written" in said
    check_no_secret(tmp_path / "here", said)
    predict(images, lambda tiles: tiles, resume=True, **asked)
    assert np.array_equal(open_images("out/a.ome.zarr").image_stacks[0].data, DATA)


SECRET = "http://me:hidden@host/a"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["predict", "a.tif", "--model", "m.pt", "--out", "s3://bucket/out"],
         "--out: must be a path on this machine, found the address 's3://bucket/out'"),
        (["predict", "a.tif", "--model", SECRET, "--out", "out"], "--model: must be a path on"),
        (["preview", "a.tif", "--out", SECRET], "found the address 'http://host/a'"),
        (["bench", "--by-chunk", SECRET], "--by-chunk: must be a path on this machine"),
        ([SECRET], "found 'http://host/a'"),
        (["info", "--level-x", SECRET, f"--axis={SECRET}"], "--axis=http://host/a"),
        (["info", SECRET.replace("host", "host:port")], "'http://host:port/a' has no host and"),
        (["info", SECRET.replace("hidden", "hid/hidden")], "write / as %2F"),
        (["info", SECRET.replace("//", "/")], "http:/host/a"),
    ],
)  # fmt: skip
def test_addresses_where_none_can_be(tmp_path, monkeypatch, capsys, given, words):
    monkeypatch.chdir(tmp_path)
    assert main(given) == 2
    shown = "".join(capsys.readouterr())
    assert words in shown
    assert "hidden" not in shown
    assert list(tmp_path.iterdir()) == []


def test_help_says_that_results_go_to_no_server(capsys):
    assert main(["predict", "a.tif", "--model", "m.pt", "--out", "s3://bucket/out"]) == 2
    assert "(see gpu-patch predict --help)" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["predict", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "--out DIR folder for the results, on this machine and not on a server" in shown


def test_results_named_by_a_secret_address():
    with pytest.raises(ValueError, match="found the address 'http://host/a'"):
        OutputOptions(out=SECRET)
