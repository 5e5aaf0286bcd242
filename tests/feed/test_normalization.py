"""What a normalisation does to values, that it can be undone, and that files keep it exactly."""

import json
import pickle
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from gpu_patch.feed import Normalization

SOME = {
    "mean_std": Normalization.mean_std([100, 3000.5], [20, 0.25], [90, 110], [15, 1 / 3]),
    "global": Normalization.mean_std(100, 20, 90.1, 15),
    "input only": Normalization.mean_std([5], [2]),
    "skip_target": Normalization.mean_std([5, 6], [2, 3], skip_target=True),
    "min_max": Normalization.min_max([0, -7], [65535, 1e-7], [1, 2], [3, 5]),
    "quantile": Normalization.quantile([0.1, 0.2], [np.pi, np.e], [-1e30, 1e-30], [1e30, 1]),
    "none": Normalization.none(),
}
every = pytest.mark.parametrize("normalization", SOME.values(), ids=SOME)


# ---- what is done ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "low", "divisor"),
    [
        (Normalization.mean_std(100, 20), [100], [20 + 1e-6]),
        (Normalization.mean_std([1, 2], [1e-6, 4]), [1, 2], [2e-6, 4 + 1e-6]),
        (Normalization.min_max(2, 2 + 1e-7), [2], [1e-7 + 1e-8]),
        (Normalization.min_max([0, 10], [1e-8, 30]), [0, 10], [2e-8, 20 + 1e-8]),
        (Normalization.quantile([0, 10], [1e-8, 30]), [0, 10], [2e-8, 20 + 1e-8]),
        (Normalization.none(), [0], [1]),
    ],
)
def test_scale_and_offset_are_those_of_careamics(made, low, divisor):
    np.testing.assert_allclose(made.input_scale, 1 / np.array(divisor), rtol=1e-6)
    np.testing.assert_allclose(made.input_offset, -np.divide(low, divisor), rtol=1e-6)
    assert made.input_scale.dtype == made.input_offset.dtype == np.float32
    assert made.target_scale is made.target_offset is None


def test_targets_have_numbers_of_their_own():
    made = Normalization.mean_std([1], [2], [3, 4, 5], [6, 7, 8])
    assert made.input_scale.shape == made.input_offset.shape == (1,)
    np.testing.assert_allclose(made.target_scale, 1 / np.array([6, 7, 8]), rtol=1e-6)
    np.testing.assert_allclose(made.target_offset, [-3 / 6, -4 / 7, -5 / 8], rtol=1e-6)


@every
def test_nobody_can_change_it(normalization):
    with pytest.raises(AttributeError):
        normalization.kind = "none"
    for name in ("input_scale", "input_offset", "target_scale", "target_offset"):
        array = getattr(normalization, name)
        assert array is None or not array.flags.writeable


# ---- and undone --------------------------------------------------------------------------------


def numpy_array(values):
    return values


def torch_tensor(values):
    torch = pytest.importorskip("torch", reason="tensors need torch")
    return torch.from_numpy(values)


@pytest.mark.parametrize("library", [numpy_array, torch_tensor])
@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("name", ["mean_std", "global", "min_max", "quantile", "none"])
def test_predictions_are_taken_back(name, n_dims, library):
    made = SOME[name]
    prediction = (
        np.random.default_rng(0).normal(size=(3, 2, *(4, 5, 6)[:n_dims])).astype(np.float32)
    )
    before = prediction.copy()
    found = made.denormalize(library(prediction))
    assert type(found) is type(library(prediction))
    found = np.asarray(found)
    assert found.dtype == np.float32
    first, second = np.broadcast_to(made.target_statistics or ([0.0], [1.0]), (2, 2))
    width = second + 1e-6 if made.kind == "mean_std" else second - first
    for c in range(2):
        width_c = width[c] if made.kind != "none" else 1
        expected = before[:, c].astype(np.float64) * width_c + first[c]
        np.testing.assert_allclose(found[:, c], expected, rtol=1e-5, atol=1e-5 * abs(width_c))
    np.testing.assert_array_equal(prediction, before)


@pytest.mark.parametrize("name", ["mean_std", "global"])
def test_what_was_done_is_undone(name):
    made = SOME[name]
    values = np.random.default_rng(0).normal(100, 20, (2, 2, 5, 6)).astype(np.float32)
    shape = (1, -1, 1, 1)
    there = values * made.target_scale.reshape(shape) + made.target_offset.reshape(shape)
    np.testing.assert_allclose(made.denormalize(there), values, rtol=1e-5)


def test_careamics_forgets_the_eps_of_ranges_on_the_way_back():
    prediction = np.ones((1, 1, 2, 2), np.float32)
    for made, expected in (
        (Normalization.mean_std(0, 1e-6), 2e-6),
        (Normalization.min_max(0, 1e-8), 1e-8),
        (Normalization.quantile(0, 1e-8), 1e-8),
    ):
        np.testing.assert_allclose(made.denormalize(prediction), expected, rtol=1e-5)


def test_predictions_of_the_input_where_there_is_no_target():
    prediction = np.full((1, 1, 2, 2), 3, np.float32)
    np.testing.assert_allclose(SOME["input only"].denormalize(prediction), 3 * 2 + 5, rtol=1e-5)


def test_predictions_stay_where_targets_were_skipped():
    prediction = np.zeros((1, 7, 2, 2), np.float16)
    assert SOME["skip_target"].denormalize(prediction) is prediction


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.uint8])
@pytest.mark.parametrize("name", ["mean_std", "global", "none"])
def test_predictions_become_float32(name, dtype):
    prediction = np.ones((1, 2, 3, 3), dtype)
    made = Normalization.mean_std([0, 0], [1e5, 2e5]) if name == "mean_std" else SOME[name]
    found = made.denormalize(prediction)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    ("prediction", "error", "words"),
    [
        (np.zeros((1, 3, 4, 4)), ValueError, ["2 channels", "found 3"]),
        (np.zeros((4, 4)), ValueError, ["BCYX", "(4, 4)"]),
        ([[1]], TypeError, ["prediction", "list"]),
    ],
)
def test_predictions_of_another_shape_are_refused(prediction, error, words):
    with pytest.raises(error) as raised:
        SOME["mean_std"].denormalize(prediction)
    assert all(word in str(raised.value) for word in words)


# ---- equality, files ---------------------------------------------------------------------------


@every
def test_equal_numbers_are_equal_objects(normalization):
    same = [
        eval(repr(normalization)),
        Normalization.from_dict(normalization.to_dict()),
        pickle.loads(pickle.dumps(normalization)),
    ]
    assert all(other == normalization and hash(other) == hash(normalization) for other in same)
    assert [other for other in SOME.values() if other == normalization] == [normalization]


@every
def test_files_are_exact(normalization, tmp_path):
    path = tmp_path / "normalization.json"
    normalization.save(path)
    assert Normalization.load(str(path)) == normalization
    json.loads(path.read_text())
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_files_keep_every_bit(tmp_path):
    bits = np.random.default_rng(0).integers(0, 2**63, 3000, dtype=np.uint64).view(np.float64)
    numbers = bits[np.isfinite(bits) & (np.abs(bits) < 1e38) & (bits > 0)]
    assert len(numbers) > 1000
    made = Normalization.mean_std(-numbers, numbers)
    made.save(tmp_path / "n")
    assert (
        Normalization.load(tmp_path / "n").input_statistics
        == made.input_statistics
        == (
            tuple((-numbers).tolist()),
            tuple(numbers.tolist()),
        )
    )


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "normalization.json"
    SOME["mean_std"].save(path)
    written = []

    def fail(self, target):
        written.append(self.read_text())
        raise OSError("the disk is full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk is full"):
        SOME["none"].save(path)
    # the whole file was there before the old one would have gone
    assert Normalization.from_dict(json.loads(written[0])) == SOME["none"]
    assert Normalization.load(path) == SOME["mean_std"]
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


GOOD = SOME["mean_std"].to_dict()
FILES = {
    "empty": b"",
    "cut": json.dumps(GOOD).encode()[:-9],
    "binary": b"\x93NUMPY\x01\xff\xfe",
    "a list": b"[1, 2]",
    "another format": json.dumps({"model": "unet"}).encode(),
    "a later version": json.dumps({**GOOD, "version": 2}).encode(),
    "no kind": json.dumps({k: v for k, v in GOOD.items() if k != "kind"}).encode(),
    "unknown kind": json.dumps({**GOOD, "kind": "z_score"}).encode(),
    "names of another kind": json.dumps({**GOOD, "kind": "min_max"}).encode(),
    "NaN": json.dumps({**GOOD, "input": {"means": [float("nan")], "stds": [1]}}).encode(),
    "no numbers": json.dumps({**GOOD, "input": {"means": ["a"], "stds": [1]}}).encode(),
    "no list": json.dumps({**GOOD, "input": {"means": None, "stds": [1]}}).encode(),
    "no input": json.dumps({**GOOD, "input": None}).encode(),
    "numbers for none": json.dumps({**GOOD, "kind": "none"}).encode(),
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_other_files_are_refused_by_name(content, tmp_path):
    path = tmp_path / "some file.json"
    path.write_bytes(content)
    with pytest.raises(
        ValueError,
        match=r"some file\.json holds no normalization, as Normalization.save writes it: .",
    ):
        Normalization.load(path)


def test_missing_files_are_os_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.json"):
        Normalization.load(tmp_path / "nothing.json")
    with pytest.raises(FileNotFoundError):
        SOME["none"].save(tmp_path / "no folder" / "n.json")


# ---- numbers that cannot be --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Normalization.mean_std(1, 0), ValueError, "input_stds[0] positive 0.0"),
        (lambda: Normalization.mean_std([1, 1], [1, -2]), ValueError, "input_stds[1] -2.0"),
        (lambda: Normalization.mean_std([1, 2], [1]), ValueError, "input_means input_stds 2 1"),
        (lambda: Normalization.mean_std([], []), ValueError, "input_means empty"),
        (lambda: Normalization.mean_std(np.nan, 1), ValueError, "input_means[0] nan"),
        (lambda: Normalization.mean_std(1, np.inf), ValueError, "input_stds[0] inf"),
        (lambda: Normalization.mean_std(1, 1e39), ValueError, "input_stds[0] float32"),
        (lambda: Normalization.mean_std("12", 1), TypeError, "input_means '12'"),
        (lambda: Normalization.mean_std([True], 1), TypeError, "input_means[0] True"),
        (lambda: Normalization.mean_std([[1]], 1), TypeError, "input_means[0] [1]"),
        (lambda: Normalization.mean_std({1}, 1), TypeError, "input_means {1}"),
        (lambda: Normalization.mean_std(1, 1, 1), ValueError, "target_means target_stds together"),
        (
            lambda: Normalization.mean_std(1, 1, 1, 1, skip_target=True),
            ValueError,
            "skip_target target",
        ),
        (lambda: Normalization.mean_std(1, 1, skip_target="no"), TypeError, "skip_target 'no'"),
        (lambda: Normalization.mean_std(None, None), ValueError, "input_statistics mean_std"),
        (lambda: Normalization.min_max(1, 1), ValueError, "input_maxes[0] input_mins[0] 1.0"),
        (
            lambda: Normalization.min_max(0, 1, [0, 4], [1, 3]),
            ValueError,
            "target_maxes[1] target_mins[1] 3.0 4.0",
        ),
        (
            lambda: Normalization.quantile(2, 1),
            ValueError,
            "input_upper_quantile_values[0] input_lower_quantile_values[0]",
        ),
        (lambda: Normalization("z", ((1,), (1,))), ValueError, "kind mean_std 'z'"),
        (lambda: Normalization("mean_std", (1,)), TypeError, "input_statistics pair"),
        (lambda: Normalization("none", ((1,), (1,))), ValueError, "input_statistics None"),
        (lambda: Normalization.from_dict([]), TypeError, "content dict"),
        (lambda: Normalization.from_dict({}), ValueError, "content format"),
    ],
)
def test_errors_say_what_is_wrong(call, error, words):
    with pytest.raises(error) as raised:
        call()
    assert raised.type is error
    missing = [word for word in words.split() if word not in str(raised.value)]
    assert not missing, f"{raised.value!r} does not say {missing}"


# ---- careamics' configs ------------------------------------------------------------------------


def config(name, skip_target=False, **statistics):
    return SimpleNamespace(name=name, skip_target=skip_target, per_channel=True, **statistics)


def test_configs_of_careamics():
    targets = {"target_means": [3, 4], "target_stds": [5, 6]}
    inputs = {"input_means": [1], "input_stds": [2]}
    made = Normalization.from_careamics(config("mean_std", **inputs, **targets))
    assert made == Normalization.mean_std(1, 2, [3, 4], [5, 6])
    made = Normalization.from_careamics(config("mean_std", True, **inputs, **targets))
    assert made == Normalization.mean_std(1, 2, skip_target=True)
    unknown = {"target_means": None, "target_stds": None}
    made = Normalization.from_careamics(config("mean_std", **inputs, **unknown))
    assert made == Normalization.mean_std(1, 2)
    ends = {"mins": [0], "maxes": [9]}
    numbers = {f"{part}_{name}": v for part in ("input", "target") for name, v in ends.items()}
    made = Normalization.from_careamics(config("min_max", **numbers))
    assert made == Normalization.min_max(0, 9, 0, 9)
    ends = {"lower_quantile_values": [0], "upper_quantile_values": [9]}
    numbers = {f"{part}_{name}": v for part in ("input", "target") for name, v in ends.items()}
    made = Normalization.from_careamics(config("quantile", **numbers))
    assert made == Normalization.quantile(0, 9, 0, 9)
    assert Normalization.from_careamics(SimpleNamespace(name="none")) == Normalization.none()


def test_other_configs_are_refused():
    unknown = dict.fromkeys(("input_means", "input_stds", "target_means", "target_stds"))
    message = re.escape("config has no input_means or no input_stds: compute them first")
    with pytest.raises(ValueError, match=message):
        Normalization.from_careamics(config("mean_std", **unknown))
    for other in (SimpleNamespace(name="standardize"), {"name": "mean_std"}, None):
        with pytest.raises(TypeError, match="MeanStdConfig"):
            Normalization.from_careamics(other)
