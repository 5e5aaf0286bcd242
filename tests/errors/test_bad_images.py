"""Wrong images, axes, files and devices (docs/specification.md, 8)."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from whole import read_image
from worlds import check

from gpu_patch import ImageStack, PatchExtractor


@pytest.fixture(autouse=True)
def on_the_host(monkeypatch):
    """What these tests prove is the same everywhere; images stay where NumPy can look at them."""
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")


T, V = TypeError, ValueError
PIXELS = np.arange(12, dtype=np.uint8).reshape(3, 4)


@pytest.mark.parametrize(
    ("data", "axes", "error", "words"),
    [
        (PIXELS, "yq", V, ["axes", "'YQ'", "'STCZYX'"]),
        (PIXELS, "YQ", V, ["axes", "'YQ'", "'STCZYX'"]),
        (PIXELS, "YY", V, ["axes", "'YY'", "once"]),
        (PIXELS, "ZX", V, ["axes", "'ZX'", "Y and X"]),
        (PIXELS, "", V, ["axes", "''", "Y and X"]),
        (PIXELS, "TYX", V, ["axes", "'TYX'", "3 letters", "(3, 4)", "2 axes"]),
        (PIXELS[None], "YX", V, ["axes", "'YX'", "2 letters", "(1, 3, 4)", "3 axes"]),
        (PIXELS, None, T, ["axes", "None", "'STCZYX'"]),
        (PIXELS, ["Y", "X"], T, ["axes", "['Y', 'X']", "string"]),
        (PIXELS, b"YX", T, ["axes", "b'YX'", "string"]),
        (PIXELS[:0], "YX", V, ["data", "(0, 4)", "empty"]),
        ([[1, 2], [3]], "YX", V, ["data", "[[1, 2], [3]]"]),
        (PIXELS * 1j, "YX", T, ["data", "complex128", "real"]),
        (PIXELS.astype(np.complex64), "YX", T, ["data", "complex64", "real"]),
        (PIXELS.astype(object), "YX", T, ["data", "object", "numbers"]),
        (PIXELS.astype(str), "YX", T, ["data", "<U", "numbers"]),
        (PIXELS.astype("S3"), "YX", T, ["data", "S3", "numbers"]),
        (PIXELS.astype("M8[s]"), "YX", T, ["data", "datetime64", "numbers"]),
        (PIXELS.view([("red", "u1")]), "YX", T, ["data", "red", "numbers"]),
        (None, "YX", T, ["data", "object", "numbers"]),
        ("picture.tif", "YX", T, ["data", "<U11", "numbers"]),
    ],
)
def test_wrong_array(data, axes, error, words):
    check(lambda w: ImageStack.from_array(data, axes), error, words)


@pytest.mark.parametrize(
    ("stacks", "error", "words"),
    [
        (lambda w: [], V, ["image_stacks", "empty", "at least one"]),
        (lambda w: None, T, ["image_stacks", "None", "sequence of ImageStack"]),
        (lambda w: w.stack, T, ["image_stacks", "ImageStack(", "sequence of ImageStack"]),
        (lambda w: iter([w.stack]), T, ["image_stacks", "iterator", "sequence of ImageStack"]),
        (lambda w: [w.stack, PIXELS], T, ["image_stacks[1]", "array(", "ImageStack"]),
        (lambda w: [w.stack, w.one], T, ["image_stacks[1]", "PatchExtractor", "ImageStack"]),
        (lambda w: "ab", T, ["image_stacks", "'a", "ImageStack"]),
        (
            lambda w: [w.stack, w.one.image_stacks[0]],
            *(V, ["channels", "image_stacks[0] has 2", "image_stacks[1] has 1"]),
        ),
        (
            lambda w: [w.one.image_stacks[0], w.volume.image_stacks[0]],
            *(V, ["spatial axes", "image_stacks[0] has 2", "image_stacks[1] has 3"]),
        ),
    ],
)
def test_wrong_image_stacks(stacks, error, words):
    check(lambda w: PatchExtractor(stacks(w)), error, words)


@pytest.mark.parametrize("path", [5, None, ["a.tif"]])
def test_path_that_is_none(path):
    check(lambda w: ImageStack.from_tiff(path), T, ["path", repr(path)])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.tif", b"These are words, no pixels.\n" * 20),
        ("empty.tif", b""),
        ("header.tif", b"II*\0"),
        ("text.png", b"These are words, no pixels.\n" * 20),
        ("text.jpg", b"\xff\xd8\xff" + b"no" * 20),
        ("empty.png", b""),
    ],
)
def test_file_that_is_no_image(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    check(lambda w: read_image(path), V, [str(path)])
    check(lambda w: ImageStack.from_tiff(path), V, [str(path)])


@pytest.mark.parametrize("name", ["nothing.tif", "nothing.png", "no/folder.tif"])
def test_missing_file(tmp_path, name):
    path = tmp_path / name
    check(lambda w: read_image(path), FileNotFoundError, [str(path)])
    check(lambda w: ImageStack.from_tiff(path), FileNotFoundError, [str(path)])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("photo.jpg", b"\xff\xd8\xff", ["it is a JPEG, which open_images reads"]),
        ("photo.JPEG", b"\xff\xd8\xff", ["it is a JPEG, which open_images reads"]),
        ("photo.tif", b"\xff\xd8\xff", ["it is a JPEG: rename it", ".jpg"]),
        ("array.npy", b"\x93NUMPY", ["it is a NumPy file, which open_images reads"]),
        ("empty.tif", b"", ["it is empty"]),
    ],
)
def test_file_of_another_kind(tmp_path, name, content, words):
    pytest.importorskip("tifffile")
    path = tmp_path / name
    path.write_bytes(content)
    named = [str(path), "cannot be read as a TIFF"]
    check(lambda w: ImageStack.from_tiff(path), V, named + words)


def test_what_tifffile_logs_of_a_damaged_file_stays_with_it(tmp_path, caplog):
    tifffile = pytest.importorskip("tifffile")
    whole, cut = tmp_path / "whole.tif", tmp_path / "cut.tif"
    tifffile.imwrite(whole, PIXELS, description="words " * 99)
    cut.write_bytes(whole.read_bytes()[:200])
    check(lambda w: ImageStack.from_tiff(cut), V, [str(cut)])
    assert not caplog.records
    tifffile.TiffFile(cut).close()  # a user's own
    assert caplog.records


def test_folder_instead_of_a_file(tmp_path):
    check(lambda w: ImageStack.from_tiff(tmp_path), IsADirectoryError, [str(tmp_path)])


@pytest.mark.parametrize(
    ("axes", "error", "words"),
    [
        ("ZYX", V, ["ZYX", "3 letters", "(3, 4)"]),
        ("YY", V, ["'YY'", "once"]),
        ("yq", V, ["'YQ'", "'STCZYX'"]),
        ("ZC", V, ["'ZC'", "Y and X"]),
        (5, T, ["axes", "5", "string"]),
    ],
)
def test_wrong_axes_for_a_file(tmp_path, axes, error, words):
    tifffile = pytest.importorskip("tifffile")
    path = tmp_path / "plain.tif"
    tifffile.imwrite(path, PIXELS)
    named = [str(path)] if error is V else []
    check(lambda w: ImageStack.from_tiff(path, axes), error, words + named)


@pytest.mark.parametrize(
    ("module", "name"), [("tifffile", "a.tif"), ("PIL", "a.png"), ("PIL", "a.jpg")]
)
def test_missing_reader_says_what_to_install(monkeypatch, tmp_path, module, name):
    monkeypatch.setitem(sys.modules, module, None)
    path = tmp_path / name
    path.write_bytes(b"any")
    calls = [read_image] if module == "PIL" else [read_image, ImageStack.from_tiff]
    for call in calls:
        with pytest.raises(ImportError, match=r"pip install 'gpu_patch\[io\]'"):
            call(path)


DEVICES = """
import json, os, sys
import numpy as np
import gpu_patch
found = {}
for device in json.loads(sys.argv[1]):
    for where in ("argument", "environment"):
        os.environ.pop("GPU_PATCH_DEVICE", None)
        given = device
        if where == "environment":
            os.environ["GPU_PATCH_DEVICE"], given = str(device), None
        try:
            stack = gpu_patch.ImageStack.from_array(np.zeros((3, 4), "u1"), "YX", device=given)
            outcome = ["made", stack.device]
        except Exception as error:
            outcome = [type(error).__name__, str(error)]
        found[f"{where} {device}"] = outcome
print(json.dumps(found))
"""


def test_devices_without_a_gpu():
    # in a process that sees no GPU, so that it proves the same on a machine that has one
    devices = ["cuda", "cuda:1", "cuda:x", "gpu", "CPU", "cuda0", 5, "cpu"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, "-c", DEVICES, json.dumps(devices)]
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    found = json.loads(output.stdout)
    for where, name in (("argument", "device"), ("environment", "GPU_PATCH_DEVICE")):
        for device in ("cuda", "cuda:1"):  # never a silent fallback
            error, message = found[f"{where} {device}"]
            assert error == "RuntimeError"
            assert f"{name} is '{device}'" in message
            assert "cpu" in message
        for device in ("cuda:x", "gpu", "CPU", "cuda0"):
            error, message = found[f"{where} {device}"]
            assert error == "ValueError"
            assert name in message
            assert f"'{device}'" in message
            assert "'cpu'" in message
        assert found[f"{where} cpu"] == ["made", "cpu"]
    assert found["argument 5"][0] == "TypeError"
    assert "device must be" in found["argument 5"][1]
    assert found["environment 5"][0] == "ValueError"


def test_default_device_follows_the_environment(monkeypatch):
    assert ImageStack.from_array(PIXELS, "YX").device == "cpu"
    monkeypatch.setenv("GPU_PATCH_DEVICE", "abacus")
    with pytest.raises(ValueError, match=r"GPU_PATCH_DEVICE must be .*'abacus'"):
        ImageStack.from_array(PIXELS, "YX")
    assert ImageStack.from_array(PIXELS, "YX", device="cpu").device == "cpu"
