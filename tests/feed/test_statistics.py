"""Statistics of all patches, against NumPy's of the patches that the constructors make."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from builders import KINDS
from emulation import fake_cupy
from emulation.fake_cupy import FakeArray
from emulation.gpu import gpu
from emulation.runtime import available
from pixels import distinct
from samples import MODES, STRATEGIES, make_sample
from worlds import GivenPatching

from gpu_patch import (
    BasicPatchConstr,
    FixedPatching,
    ImageStack,
    MultiChannelTargetMsPatchConstr,
    PatchExtractor,
    PredMsPatchConstr,
    RandomPatching,
    SequentialPatching,
    WholeSamplePatching,
)
from gpu_patch._host import library
from gpu_patch._numpy import lateral_context as numpy_lateral_context
from gpu_patch.epilogue import Epilogue
from gpu_patch.feed import Normalization, compute_normalization

COMPUTED = ("mean_std", "min_max", "quantile")


def extractor(*arrays, axes="SCYX"):
    return PatchExtractor([ImageStack.from_array(a, axes, device="cpu") for a in arrays])


def basic(pixels, size, **options):
    """All patches of one image (S, C, Y, X)."""
    images = extractor(pixels)
    return BasicPatchConstr(SequentialPatching(images.shapes, size), images, **options)


def values_of(batches, constructor):
    """Channels (C, n) of principal input and target, in float64."""
    principal = [constructor.get_principal_input(batch.input) for batch in batches]
    target = [batch.target for batch in batches]

    def flat(arrays):
        columns = [np.moveaxis(a, 1, 0).reshape(a.shape[1], -1) for a in arrays]
        return np.concatenate(columns, axis=1).astype(np.float64)

    return flat(principal), None if target[0] is None else flat(target)


def all_values(constructor, epoch=0, indices=None):
    chosen = range(constructor.n_patches) if indices is None else indices
    batches = [constructor.construct_batch([i], epoch=epoch) for i in chosen]
    return values_of(batches, constructor)


def expected_statistics(kind, values, per_channel=True, lower=0.01, upper=0.99):
    if not per_channel:
        values = values.reshape(1, -1)
    if kind == "mean_std":
        return np.array([values.mean(axis=1), values.std(axis=1)])
    if kind == "min_max":
        return np.array([values.min(axis=1), values.max(axis=1)])
    return np.quantile(values, [lower, upper], axis=1)


def assert_statistics(kind, found, values, **options):
    """Those of `values`, up to the rounding of mixtures."""
    expected = expected_statistics(kind, values, **options)
    found = np.array(found)
    assert found.shape == expected.shape
    if kind == "min_max":
        np.testing.assert_array_equal(found, expected)
    else:
        assert np.abs(found - expected).max() <= 1e-6 * np.ptp(values)


def assert_all_statistics(made, kind, constructor, epoch=0, indices=None, **options):
    assert made.kind == kind
    inputs, target = all_values(constructor, epoch, indices)
    assert_statistics(kind, made.input_statistics, inputs, **options)
    if target is None:
        assert made.target_statistics is None
    else:
        assert_statistics(kind, made.target_statistics, target, **options)


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("name", COMPUTED)
@pytest.mark.parametrize("kind", KINDS)
def test_statistics_are_those_of_all_patches(kind, name, per_channel):
    constructor = make_sample(kind, "random").constructor
    made = compute_normalization(constructor, name, per_channel=per_channel)
    assert_all_statistics(made, name, constructor, per_channel=per_channel)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_with_any_strategy(kind, n_dims, strategy):
    constructor = make_sample(kind, strategy, n_dims).constructor
    assert_all_statistics(compute_normalization(constructor), "mean_std", constructor)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_beyond_a_border_is_as_in_the_patches(kind, mode):
    constructor = make_sample(kind, "fixed", mode=mode).constructor
    assert_all_statistics(compute_normalization(constructor), "mean_std", constructor)


@pytest.mark.parametrize("mode", MODES)
def test_the_cut_of_wrapped_images_is_that_of_all_scales(mode):
    """The cut of one scale would give other pixels beyond the border, and other statistics."""
    images = extractor(distinct((1, 1, 40, 40), "uint16"))
    spec = {"data_idx": 0, "sample_idx": 0, "coords": (-2, -2), "patch_size": (6, 6)}
    three, one = (PredMsPatchConstr(FixedPatching([spec]), images, n, mode) for n in (3, 1))
    made = compute_normalization(three)
    assert_all_statistics(made, "mean_std", three)
    assert (compute_normalization(one) != made) == (mode == "wrap")


@pytest.mark.parametrize("kind", KINDS)
def test_no_context_is_built(kind, monkeypatch):
    constructor = make_sample(kind).constructor
    monkeypatch.setattr(library, "choice", lambda: library.Choice(None, ""))
    monkeypatch.setattr(numpy_lateral_context, "downscale", None)
    compute_normalization(constructor)
    if kind != "basic":
        with pytest.raises(TypeError):  # the patch would notice
            constructor.construct_batch([0])


@pytest.mark.parametrize("name", COMPUTED)
@pytest.mark.parametrize("kind", KINDS)
def test_batches_of_any_size_give_the_same(kind, name):
    constructor = make_sample(kind).constructor
    first, *others = (
        compute_normalization(constructor, name, batch_size=size) for size in (1, 7, 1000, None)
    )
    for other in others:
        for part in ("input_statistics", "target_statistics"):
            a, b = getattr(first, part), getattr(other, part)
            assert (a is None) == (b is None)
            if a is not None:
                np.testing.assert_allclose(a, b, rtol=1e-7 if name == "mean_std" else 0)


@pytest.mark.parametrize("name", COMPUTED)
def test_indices_and_epochs(name):
    constructor = make_sample("multichannel").constructor
    indices = [5, 0, -1, 5]
    made = compute_normalization(constructor, name, indices=indices, epoch=9)
    assert_all_statistics(made, name, constructor, epoch=9, indices=indices)
    assert made != compute_normalization(constructor, name, indices=indices)


@pytest.mark.parametrize("probability", [0, 0.5, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_draws_of_upstream(kind, probability):
    made, patches = (make_sample(kind, probability=probability).constructor for _ in range(2))
    found = compute_normalization(made, upstream_draws=True, batch_size=5)
    drawn = [patches.construct_patch(i)[:2] for i in range(patches.n_patches)]
    inputs = np.stack([patches.get_principal_input(x) for x, _ in drawn])
    batch = (inputs, None if drawn[0][1] is None else np.stack([target for _, target in drawn]))
    columns = [None if a is None else np.moveaxis(a, 1, 0).reshape(a.shape[1], -1) for a in batch]
    assert_statistics("mean_std", found.input_statistics, columns[0].astype(float))
    if columns[1] is not None:
        assert_statistics("mean_std", found.target_statistics, columns[1].astype(float))
    # and both go on alike
    after = made.construct_patch(3), patches.construct_patch(3)
    np.testing.assert_array_equal(after[0][0], after[1][0])
    assert after[0][2] == after[1][2]


def test_images_of_many_sizes():
    images = extractor(*(distinct((2, 2, 5 + i % 3, 9), "uint16", i) for i in range(6)))
    constructor = BasicPatchConstr(WholeSamplePatching(images.shapes), images)
    for batch_size in (None, 1, 3):
        made = compute_normalization(constructor, batch_size=batch_size)
        assert_all_statistics(made, "mean_std", constructor)


@pytest.mark.parametrize("kind", KINDS)
def test_skipped_targets(kind):
    constructor = make_sample(kind).constructor
    made = compute_normalization(constructor, skip_target=True)
    assert made.skip_target
    assert made.target_statistics is None
    assert made.input_statistics == compute_normalization(constructor).input_statistics


def test_none_looks_at_no_pixel():
    constructor = basic(np.full((1, 1, 8, 8), np.nan, np.float32), (4, 4))
    assert compute_normalization(constructor, "none") == Normalization.none()


def test_epilogues_of_plans_are_followed(monkeypatch):
    """A constructor may itself change values, of a structure that is absent for example."""
    constructor = make_sample("multichannel", "whole").constructor
    plan_batch = type(constructor)._plan_batch

    def changed(self, index, epoch):
        n = len(index)
        arrays = [(index[:, None] + c).astype(np.float32) for c in range(1, 5)]
        epilogue = Epilogue(*arrays[:2], *(np.repeat(a, 3, axis=1) for a in arrays[2:]))
        plan = plan_batch(self, index, epoch)
        return replace(plan, epilogue=epilogue) if n == 1 and index[0] % 4 > 1 else plan

    monkeypatch.setattr(type(constructor), "_plan_batch", changed)
    assert_all_statistics(compute_normalization(constructor), "mean_std", constructor)


# ---- rounding ----------------------------------------------------------------------------------


def test_small_deviations_from_a_large_mean():
    pixels = 60000 + distinct((1, 1, 256, 256), "uint16") % 3
    constructor = basic(pixels.astype(np.uint16), (16, 16))
    ((mean,), (std,)) = compute_normalization(constructor).input_statistics
    assert mean == pytest.approx(pixels.mean(), rel=1e-10)
    assert std == pytest.approx(pixels.std(), rel=1e-6)


def test_a_first_patch_unlike_the_others():
    pixels = np.random.default_rng(0).normal(50, 2, (1, 1, 640, 320)).astype(np.float32)
    pixels[..., :16, :16] += 20000
    ((mean,), (std,)) = compute_normalization(basic(pixels, (16, 16))).input_statistics
    exact = pixels.astype(np.float64)
    assert mean == pytest.approx(exact.mean(), rel=1e-7)
    assert std == pytest.approx(exact.std(), rel=1e-6)


# ---- quantiles ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("lower", "upper"), [(0, 1), (0.25, 0.75), (0.001, 0.999)])
def test_other_quantiles(lower, upper):
    constructor = make_sample("basic", "sequential").constructor
    made = compute_normalization(constructor, "quantile", lower=lower, upper=upper)
    assert_all_statistics(made, "quantile", constructor, lower=lower, upper=upper)


def test_quantiles_per_channel():
    constructor = basic(distinct((2, 2, 64, 64), "float32"), (16, 16))
    made = compute_normalization(constructor, "quantile", lower=[0.1, 0.2], upper=[0.7, 1])
    values, _ = all_values(constructor)
    for c, levels in enumerate([(0.1, 0.7), (0.2, 1)]):
        found = [ends[c] for ends in made.input_statistics]
        np.testing.assert_array_equal(found, np.quantile(values[c], levels))


class Wandering(RandomPatching):
    """Somebody's own: it draws anew whenever it is asked, and remembers what it drew."""

    def __init__(self, *args):
        super().__init__(*args)
        self.drawn = []

    def get_patch_spec(self, index):
        self.drawn.append(super().get_patch_spec(index))
        return self.drawn[-1]


@pytest.mark.parametrize("upstream_draws", [False, True])
def test_both_passes_are_of_the_same_patches(upstream_draws):
    images = extractor(distinct((2, 1, 60, 50), "float32"))
    strategy = Wandering(images.shapes, (7, 9), 4)
    constructor = BasicPatchConstr(strategy, images)
    made = compute_normalization(constructor, "quantile", upstream_draws=upstream_draws)
    assert len(strategy.drawn) == strategy.n_patches
    fixed = BasicPatchConstr(FixedPatching(strategy.drawn), images)
    assert_all_statistics(made, "quantile", fixed)
    values, _ = all_values(fixed)
    np.testing.assert_array_equal(
        np.ravel(made.input_statistics), np.quantile(values, [0.01, 0.99])
    )


@pytest.mark.parametrize("dtypes", [["uint8", "int16"], ["uint16", "float32"], ["float16"]])
def test_quantiles_of_images_are_exact(dtypes):
    images = extractor(*(distinct((2, 2, 40, 33), dtype, i) for i, dtype in enumerate(dtypes)))
    constructor = BasicPatchConstr(RandomPatching(images.shapes, (8, 9), 0), images, seed=1)
    values, _ = all_values(constructor, epoch=3)
    for per_channel in (True, False):
        made = compute_normalization(constructor, "quantile", epoch=3, per_channel=per_channel)
        expected = expected_statistics("quantile", values, per_channel)
        np.testing.assert_array_equal(np.array(made.input_statistics), expected)


# ---- on a device -------------------------------------------------------------------------------


def as_cupy_would(monkeypatch, module):
    """Arithmetic for the stand-in of CuPy, which has none: all of it kernels of CuPy's own.

    As there, arrays of NumPy do not take part.
    """

    def pixels_of(operand):
        assert not isinstance(operand, np.ndarray) or operand.ndim == 0
        return operand._pixels if isinstance(operand, FakeArray) else operand

    def lifted(function, *, shaped_by_values=False):
        def method(self, *operands, **options):
            if shaped_by_values:
                gpu.finish()  # as CuPy waits for the values
            operands = [pixels_of(operand) for operand in operands]
            return self._computed(lambda pixels: function(pixels, *operands, **options))

        return method

    names = ("sum", "mean", "min", "max", "all", "clip", "astype", "view")
    operators = ("add", "sub", "mul", "lt", "ge", "eq", "and", "rshift")
    for name in [*names, *(f"__{operator}__" for operator in operators)]:
        function = getattr(np.ndarray, name)
        monkeypatch.setattr(FakeArray, name, lifted(function), raising=False)
    of_slices = FakeArray.__getitem__
    of_arrays = lifted(np.ndarray.__getitem__, shaped_by_values=True)
    monkeypatch.setattr(
        FakeArray,
        "__getitem__",
        lambda self, key: (of_arrays if isinstance(key, FakeArray) else of_slices)(self, key),
    )
    module.bincount = lifted(np.bincount, shaped_by_values=True)
    module.isfinite = lifted(np.isfinite)


@pytest.fixture
def on_device(backend, monkeypatch):
    with backend.running():
        if backend.name == "emulated":
            as_cupy_would(monkeypatch, sys.modules["cupy"])
        yield backend.device


@pytest.mark.parametrize("upstream_draws", [True, False])
@pytest.mark.parametrize("name", COMPUTED)
@pytest.mark.parametrize("kind", KINDS)
def test_every_backend_gives_the_same(kind, name, upstream_draws, on_device):
    made, expected = (
        compute_normalization(
            make_sample(kind, device=device).constructor,
            name,
            batch_size=7,
            upstream_draws=upstream_draws,
        )
        for device in (on_device, "cpu")
    )
    for part in ("input_statistics", "target_statistics"):
        a, b = getattr(made, part), getattr(expected, part)
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.parametrize("place", [(0, 0, 0, 0), (1, 1, 39, 40)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_named_on_every_backend(value, place, on_device):
    """Also where the patches of this epoch miss it, as they do the second place."""
    pixels = distinct((2, 2, 40, 41), "float32")
    pixels[place] = value
    images = PatchExtractor([ImageStack.from_array(pixels, "SCYX", device=on_device)])
    constructor = BasicPatchConstr(RandomPatching(images.shapes, (4, 5), 0), images, seed=0)
    where = rf"pixel \({place[2]}, {place[3]}\), channel {place[1]}, sample {place[0]} of array"
    for name in COMPUTED:
        with pytest.raises(ValueError, match=where):
            compute_normalization(constructor, name)


@pytest.mark.skipif(not available(), reason="needs a C++ compiler")
@pytest.mark.parametrize("name", ["mean_std", "min_max"])
def test_only_ranges_and_sums_leave_the_device(name, monkeypatch):
    with fake_cupy.installed() as module:
        as_cupy_would(monkeypatch, module)
        gpu.n_devices = 2
        constructor = make_sample("multichannel", "sequential", device="cuda:1").constructor
        gpu.log.clear()
        compute_normalization(constructor, name, batch_size=10)
        downloads = [action.what for action in gpu.log if action.kind == "download"]
        assert downloads
        # the smallest or largest value of each channel of each patch
        assert max(downloads) <= 10 * 3 * 4
        assert {action.device for action in gpu.log if action.kind != "pin"} == {1}


# ---- progress, memory --------------------------------------------------------------------------


def test_nothing_is_printed_where_nobody_looks(capfd):
    compute_normalization(make_sample("basic").constructor)
    assert capfd.readouterr() == ("", "")


def test_progress_counts_patches(monkeypatch):
    bars = []

    class Bar:
        def __init__(self, *, total, delay, disable, **options):
            self.total, self.n, self.disable = total, 0, disable
            assert delay > 0
            bars.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.closed = True

        def update(self, n):
            self.n += n

    monkeypatch.setitem(sys.modules, "tqdm.auto", SimpleNamespace(tqdm=Bar))
    constructor = make_sample("multichannel").constructor
    for upstream_draws in (False, True):
        compute_normalization(constructor, batch_size=5, upstream_draws=upstream_draws)
        bar = bars.pop()
        assert bar.n == bar.total == constructor.n_patches
        assert bar.closed
        assert bar.disable is None  # only in a terminal
    compute_normalization(constructor, progress=False)
    assert not bars


def test_tqdm_is_not_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    compute_normalization(make_sample("basic").constructor)


PROGRAM = """
import json, sys, tracemalloc
import numpy as np
import gpu_patch as g
from gpu_patch.feed import compute_normalization
pixels = np.random.default_rng(0).integers(0, 9999, (24, 2, 512, 512), dtype=np.uint16)
images = g.PatchExtractor([g.ImageStack.from_array(pixels, "SCYX", device="cpu")])
strategy = g.SequentialPatching(images.shapes, (64, 64))
made = g.MultiChannelTargetMsPatchConstr(strategy, images, 4, "reflect", None, 0.0, seed=0)
tracemalloc.start()
compute_normalization(made, sys.argv[1], progress=False)
print(json.dumps(tracemalloc.get_traced_memory()[1]))
"""


@pytest.mark.parametrize("name", COMPUTED)
def test_memory_does_not_grow_with_the_patches(name):
    """All of them are 75 MB of float32."""
    command = [sys.executable, "-c", PROGRAM, name]
    output = subprocess.run(command, check=True, capture_output=True, text=True)
    assert json.loads(output.stdout) < 25e6


# ---- what cannot be ----------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", COMPUTED)
def test_images_that_are_not_finite(name, value):
    pixels = distinct((1, 2, 32, 32), "float32")
    pixels[0, 1, 20, 20] = value
    with pytest.raises(ValueError, match="input images must hold finite values"):
        compute_normalization(basic(pixels, (8, 8)), name)


@pytest.mark.parametrize(
    ("name", "word"), [("mean_std", "stds"), ("min_max", "maxes"), ("quantile", "upper")]
)
@pytest.mark.parametrize("value", [0, 0.3, 1e9 + 77])
def test_images_of_one_value(name, word, value):
    constructor = basic(np.full((1, 1, 40, 40), value, np.float32), (7, 7))
    with pytest.raises(ValueError, match=rf"input_.*{word}"):
        compute_normalization(constructor, name)


def test_generators_stay_where_they_were_after_an_error():
    images = extractor(np.full((1, 2, 20, 20), 7, np.uint8))
    strategy, rng = RandomPatching(images.shapes, (5, 5), 1), np.random.default_rng(2)
    made = MultiChannelTargetMsPatchConstr(strategy, images, 2, "reflect", None, 0.5, rng=rng)
    before = strategy.rng.bit_generator.state, rng.bit_generator.state
    with pytest.raises(ValueError, match="input_stds"):
        compute_normalization(made, upstream_draws=True)
    assert (strategy.rng.bit_generator.state, rng.bit_generator.state) == before


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"constructor": "basic"}, TypeError, "constructor 'basic'"),
        ({"kind": "z"}, ValueError, "kind mean_std 'z'"),
        ({"batch_size": 0}, ValueError, "batch_size 0"),
        ({"indices": []}, ValueError, "indices empty"),
        ({"indices": [99999]}, IndexError, "indices 99999"),
        ({"epoch": -1}, ValueError, "epoch -1"),
        ({"lower": 0.9, "upper": 0.1}, ValueError, "lower upper 0.9 0.1"),
        ({"lower": -0.1}, ValueError, "lower -0.1"),
        ({"upper": 1.5}, ValueError, "upper 1.5"),
        ({"upper": "a"}, TypeError, "upper 'a'"),
        ({"lower": [0.1, 0.2]}, ValueError, "lower upper equally"),
        ({"lower": [0.1] * 2, "upper": [0.9] * 2}, ValueError, "lower upper 3 input 2"),
    ],
)
def test_errors_say_what_is_wrong(options, error, words):
    arguments = {"constructor": make_sample("basic").constructor, "kind": "quantile", **options}
    with pytest.raises(error) as raised:
        compute_normalization(**arguments)
    missing = [word for word in words.split() if word not in str(raised.value)]
    assert not missing, f"{raised.value!r} does not say {missing}"


def test_constructors_without_patches():
    images = extractor(np.zeros((1, 1, 8, 8), np.uint8))
    constructor = BasicPatchConstr(GivenPatching(n_patches=0), images)
    with pytest.raises(ValueError, match="constructor has 0 patches"):
        compute_normalization(constructor)
