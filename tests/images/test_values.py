"""Values of images, counted on request: NaN, infinity, and samples of zeros or of one value."""

import json
import warnings

import numpy as np
import pytest
from emulation import fake_cupy
from formats import numbered

from gpu_patch import open_images
from gpu_patch.cli import main
from gpu_patch.images.values import ValueCounter, count_values


def slow(data):
    """The same counts, one value after the other."""
    empty, constant = [], []
    for place in np.ndindex(data.shape[:2]):
        values = {value.item() for value in data[place].ravel()}
        if len(values) == 1 and values != {np.nan}:
            (empty if values == {0} else constant).append(place)
    return np.isnan(data).sum(), np.isinf(data).sum(), tuple(empty), tuple(constant)


def spoilt(dtype, shape=(3, 2, 37, 53)):
    data = (numbered("SCYX", S=shape[0], C=shape[1], Y=shape[2], X=shape[3]) % 199 + 1).astype(
        dtype
    )
    data[0, 1] = 0
    data[2, 0] = 7
    if data.dtype.kind == "f":
        data[1, 1, 3, 4], data[1, 1, 36, 52], data[1, 0, 0, 0] = np.nan, np.inf, -np.inf
        data[2, 0, 5, 5] = np.nan  # one value, but for this
    return data


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "float16", "float32"])
@pytest.mark.parametrize("shape", [(3, 2, 37, 53), (3, 2, 300, 501)])
def test_counts(dtype, shape):
    data = spoilt(dtype, shape)
    found = count_values(data)
    expected = slow(data)
    assert (found.n_nan, found.n_infinite, found.empty, found.constant) == expected
    assert (found.n_values, found.n_planes) == (data.size, 6)
    counter = ValueCounter(shape)
    for s in range(3):
        for rows in (slice(0, 11), slice(11, None)):
            counter.add((s, 0), data[s : s + 1, :, rows])
    assert counter.counts() == found


@pytest.mark.filterwarnings("error")
def test_every_half():
    values = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    found = count_values(values.reshape(1, 1, 256, 256))
    assert (found.n_nan, found.n_infinite) == (np.isnan(values).sum(), np.isinf(values).sum())
    # and in a plane each, between others
    between = np.stack([np.full_like(values, n) for n in (-1, 1, 1)], -1)
    between[:, 1] = values
    among = count_values(between.reshape(-1, 1, 1, 3))
    assert (among.n_nan, among.n_infinite) == (found.n_nan, found.n_infinite)
    # a plane each of two values: constant where these are equal, 0 and -0 too, and no NaN
    values = np.union1d(values.view(np.uint16)[::97], [0x8000, 0x7C00, 0xFC00, 0xBC00, 0x3C00])
    values = values.astype(np.uint16).view(np.float16)
    others = np.array([1, 0, 1024, np.nan, np.inf, -np.inf, -1, -0.0], np.float16)
    for other in (*others, -others[3]):
        pairs = np.stack([values, np.full_like(values, other)], -1)
        equal = pairs[:, 0] == pairs[:, 1]
        found = count_values(pairs.reshape(-1, 1, 1, 2))
        empty = [s for s, _ in found.empty]
        assert empty == np.flatnonzero(equal & (values == 0)).tolist()
        assert [s for s, _ in found.constant] == np.flatnonzero(equal & (values != 0)).tolist()
        assert found.n_nan == np.isnan(pairs).sum()


@pytest.mark.parametrize("by_chunk", [False, True])
def test_on_a_device(tmp_path, by_chunk):
    data = spoilt("float32")
    np.save(tmp_path / "a.npy", data)
    with fake_cupy.installed(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        options = {"device": "cuda:0", "by_chunk": by_chunk, "check_values": True}
        images = open_images(tmp_path / "a.npy", "SCYX", **options)
        assert images.value_counts == [count_values(data)]


@pytest.mark.parametrize("by_chunk", [False, True])
def test_open_images(tmp_path, monkeypatch, by_chunk):
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")
    data = spoilt("float32")
    np.save(tmp_path / "0.npy", np.ones_like(data) * numbered("SCYX", S=3) + 1)
    np.save(tmp_path / "1.npy", data)
    np.save(tmp_path / "2.npy", np.zeros_like(data))
    words = (
        r"1\.npy: 2 of 11,766 values are NaN; 2 of 11,766 values are infinite; 1 of 6 channels of "
        r"samples hold nothing but zeros, the first is sample 0, channel 1; likewise 1 of the other"
    )
    with pytest.warns(UserWarning, match=words) as said:
        images = open_images(tmp_path, "SCYX", by_chunk=by_chunk, check_values=True)
    assert len(said) == 1
    assert said[0].filename == __file__
    assert [len(counts.empty) for counts in images.value_counts] == [0, 1, 6]
    assert [counts.n_nan for counts in images.value_counts] == [0, 2, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not open_images(tmp_path, "SCYX", by_chunk=by_chunk).value_counts
        found = open_images(tmp_path / "0.npy", "SCYX", by_chunk=by_chunk, check_values=True)
        assert str(found.value_counts[0]) == ""


def test_info(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")
    np.save(tmp_path / "0.npy", numbered("SCYX"))
    np.save(tmp_path / "1.npy", spoilt("uint8"))
    assert main(["info", str(tmp_path / "0.npy"), "--axes", "SCYX", "--check-values"]) == 0
    assert "values: all are finite, and no sample holds one value" in capsys.readouterr().out
    command = ["info", str(tmp_path), "--axes", "SCYX"]
    assert main([*command, "--check-values"]) == 0
    shown = capsys.readouterr().out
    assert (
        "1.npy: 1 of 6 channels of samples hold nothing but zeros, the first is sample 0, channel 1"
        "; 1 of 6 channels of samples hold one value, the first is sample 2, channel 0"
    ) in shown
    assert main([*command, "--check-values", "--json"]) == 0
    images = json.loads(capsys.readouterr().out)["images"]
    assert [image["values"]["empty"] for image in images] == [[], [[0, 1]]]
    assert main(command) == 0
    assert "values" not in capsys.readouterr().out
    assert main(["info", "--check-values"]) == 2
    assert "--check-values is about files" in capsys.readouterr().err
