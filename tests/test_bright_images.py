"""A small signal on a large background: normalised values are as exact as float32 allows."""

from itertools import cycle
from types import SimpleNamespace

import numpy as np
import pytest
import reference
from reference import on_host

import gpu_patch
from gpu_patch import Augmentation, predict
from gpu_patch import device as devices
from gpu_patch.feed import Normalization

KINDS = ("basic", "multichannel", "independent", "paired", "pred")
MIXING = ("multichannel", "independent")
# data type, background, standard deviation of the signal
SIGNALS = {
    "500 ± 3": ("uint16", 500, 3),
    "65000 ± 2": ("uint16", 65000, 2),
    "-30000 ± 4": ("int16", -30000, 4),
    "1e6 ± 5": ("float32", 1e6, 5),
    "1e8 ± 30": ("float32", 1e8, 30),
}
signals = pytest.mark.parametrize("signal", SIGNALS.values(), ids=SIGNALS)
PATCH, N_SCALES = {2: (8, 8), 3: (3, 6, 6)}, 3
INDICES = range(6)


def pixels(signal, n_channels, size, seed):
    """A background of each channel's own, and noise."""
    dtype, background, deviation = signal
    rng = np.random.default_rng(seed)
    levels = background * np.array([1, 0.9, 0.97])[:n_channels].reshape(-1, *[1] * len(size))
    values = levels + deviation * rng.standard_normal((2, n_channels, *size))
    return np.rint(values).astype(dtype)


class Case:
    """A constructor of bright images, and what its batches are before normalisation."""

    def __init__(self, kind, signal, device="cpu", *, n_dims=2, **options):
        size = (37, 45) if n_dims == 2 else (9, 21, 26)
        self.kind, self.patch = kind, PATCH[n_dims]
        axes = "SCYX" if n_dims == 2 else "SCZYX"
        n_channels = 1 if kind in ("paired", "pred") else 3
        self.images = [pixels(signal, n_channels, size, 1)]
        if kind == "independent":
            self.images = [self.images[0][:, c : c + 1].copy() for c in range(3)]
        self.targets = [pixels(signal, 2, size, 2)] if kind in ("basic", "paired") else None

        def extractor(arrays):
            return gpu_patch.PatchExtractor(
                [gpu_patch.ImageStack.from_array(a, axes, device=device) for a in arrays]
            )

        inputs = extractor(self.images)
        strategy = gpu_patch.RandomPatching(inputs.shapes, self.patch, 0)
        context = (N_SCALES, "reflect")
        ranges = options.pop("ranges", None)
        if kind == "basic":
            made = gpu_patch.BasicPatchConstr(strategy, inputs, extractor(self.targets), seed=3)
        elif kind == "multichannel":
            made = gpu_patch.MultiChannelTargetMsPatchConstr(
                strategy, inputs, *context, ranges, 0.5, seed=3, **options
            )
        elif kind == "independent":
            each = [extractor([image]) for image in self.images]
            made = gpu_patch.IndependentTargetsMsPatchConstr(
                [gpu_patch.RandomPatching(one.shapes, self.patch, 0) for one in each],
                each,
                *context,
                ranges,
                seed=3,
                **options,
            )
        elif kind == "paired":
            made = gpu_patch.PairedInputTargetMsPatchConstr(
                strategy, inputs, extractor(self.targets), *context, seed=3
            )
        else:
            made = gpu_patch.PredMsPatchConstr(strategy, inputs, *context, seed=3)
        self.constructor = made

    def exact(self):
        """Input and target in float64."""
        plan = self.constructor.plan_batch(INDICES)
        if self.kind == "basic":
            inputs = reference.gather(self.images, plan.sources, self.patch).astype(np.float64)
            target = None
        else:
            inputs, target = reference.lateral_context(
                self.images, plan.sources, plan.weights, self.patch, N_SCALES, "reflect"
            )
        if self.targets is not None:
            sources = plan.sources._replace(channels=np.arange(2))
            target = reference.gather(self.targets, sources, self.patch)
        if plan.epilogue is not None:
            shape = (-1, 1, *[1] * len(self.patch))
            inputs = inputs + plan.epilogue.input_offset.astype(np.float64).reshape(shape)
            gone = plan.epilogue.target_scale == 0
            target = np.array(target, np.float64)
            target[gone] = plan.epilogue.target_offset[gone].reshape(-1, *[1] * len(self.patch))
        return inputs, None if self.kind == "pred" else np.array(target, np.float64)


def moments(values, *, mixed=False):
    """Means and standard deviations of channels; of all that is mixed together."""
    columns = np.moveaxis(values, 1, 0).reshape(1 if mixed else values.shape[1], -1)
    return columns.mean(axis=1), columns.std(axis=1)


def statistics(kind, inputs, target, *, targets=True):
    numbers = [*moments(inputs if kind == "basic" else inputs[:, :1], mixed=kind != "basic")]
    if target is not None and targets:
        numbers += moments(target)
    return Normalization.mean_std(*numbers, skip_target=not targets)


def assert_normalised(found, exact, means, stds, n_dims):
    """Within 1e-6 of the largest, or twice what the formula reaches in float32."""
    found = on_host(found)
    means, stds = (np.reshape(v, (-1, *[1] * n_dims)) for v in (means, stds))
    wanted = (exact - means) / (stds + 1e-6)
    formula = (exact.astype(np.float32) - means.astype(np.float32)) / (stds + 1e-6).astype("f4")
    allowed = max(1e-6 * np.abs(wanted).max(), 2 * np.abs(formula - wanted).max())
    assert found.dtype == np.float32
    assert found.shape == wanted.shape
    assert np.ptp(wanted) > 1, "the signal must be there"
    assert np.abs(found - wanted).max() <= allowed


def check(case, **options):
    inputs, target = case.exact()
    n_dims = len(case.patch)
    found = statistics(case.kind, inputs, target, **options)
    batch = case.constructor.construct_batch(INDICES, normalization=found)
    assert_normalised(batch.input, inputs, *found.input_statistics, n_dims)
    if target is None:
        assert batch.target is None
    elif found.skip_target:
        np.testing.assert_array_equal(on_host(batch.target), target)
    else:
        assert_normalised(batch.target, target, *found.target_statistics, n_dims)


@signals
@pytest.mark.parametrize("kind", KINDS)
def test_the_background_is_subtracted_first(kind, signal, device):
    check(Case(kind, signal, device))


@pytest.mark.parametrize("kind", KINDS)
def test_volumes(kind, device):
    check(Case(kind, SIGNALS["65000 ± 2"], device, n_dims=3))


@signals
@pytest.mark.parametrize("kind", ["basic", *MIXING, "paired"])
def test_without_statistics_of_the_target(kind, signal, device):
    """Then nothing is known of the channels that are mixed, but their mixture."""
    check(Case(kind, signal, device), targets=False)


@pytest.mark.parametrize("ranges", [[(0.2, 0.2), (0.5, 0.5), (0.3, 0.3)], [(0.0, 1.0)] * 3])
@pytest.mark.parametrize("kind", MIXING)
def test_other_weights(kind, ranges, device):
    for targets in (True, False):
        check(Case(kind, SIGNALS["65000 ± 2"], device, ranges=ranges), targets=targets)


@pytest.mark.parametrize("background", [0, 64_900.0])
@pytest.mark.parametrize("kind", MIXING)
def test_absent_structures(kind, background, device):
    options = {"absent_prob": 0.4, "background": background}
    check(Case(kind, SIGNALS["65000 ± 2"], device, **options))


@pytest.mark.parametrize("kind", KINDS)
def test_turned_and_in_half_precision(kind, device):
    case = Case(kind, SIGNALS["500 ± 3"], device)
    inputs, target = case.exact()
    options = {"normalization": statistics(kind, inputs, target)}
    plain = case.constructor.construct_batch(INDICES, **options)
    half = case.constructor.construct_batch(INDICES, dtype=np.float16, **options)
    reference.assert_same(half.input, on_host(plain.input).astype(np.float16))
    options["augmentation"] = Augmentation()
    turned = case.constructor.construct_batch(INDICES, **options)
    turns = case.constructor.plan_batch(INDICES, **options).epilogue.orientation
    for one, other in zip(turned[:2], plain[:2], strict=True):
        if other is None:
            continue
        each = zip(on_host(other), turns, strict=True)
        wanted = np.stack([reference.turned(v, t) for v, t in each])
        np.testing.assert_array_equal(on_host(one), wanted)


def test_zeros_beyond_the_image_are_normalised_too():
    case = Case("basic", SIGNALS["500 ± 3"])
    places = [
        {"data_idx": 0, "sample_idx": 1, "coords": (-3, 40), "patch_size": case.patch},
        {"data_idx": 0, "sample_idx": 0, "coords": (33, -2), "patch_size": case.patch},
    ]
    constructor = gpu_patch.BasicPatchConstr(
        gpu_patch.FixedPatching(places), case.constructor.input_extractor, seed=0
    )
    means, stds = [500.3, 450.1, 485.7], [3.1, 2.9, 3.3]
    made = Normalization.mean_std(means, stds)
    plain = constructor.construct_batch([0, 1]).input
    assert (plain == 0).any()
    found = constructor.construct_batch([0, 1], normalization=made).input
    wanted = (plain.astype(np.float64) - np.reshape(means, (3, 1, 1))) / (
        np.reshape(stds, (3, 1, 1)) + 1e-6
    )
    np.testing.assert_allclose(found, wanted, rtol=3e-7, atol=1e-6)


# ---- objects of users --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_objects_with_centers_need_no_offsets(kind, device):
    case = Case(kind, SIGNALS["65000 ± 2"], device)
    inputs, target = case.exact()
    known = statistics(kind, inputs, target)
    names = ("input_center", "input_scale", "target_center", "target_scale")
    own = SimpleNamespace(**{name: getattr(known, name) for name in names})
    found = case.constructor.construct_batch(INDICES, normalization=own)
    wanted = case.constructor.construct_batch(INDICES, normalization=known)
    for one, other in zip(found[:2], wanted[:2], strict=True):
        np.testing.assert_array_equal(on_host(one), on_host(other))


def test_objects_with_offsets_do_what_they_say(device):
    case = Case("basic", SIGNALS["500 ± 3"], device)
    numbers = {"input_scale": [0.5, 2, 3], "input_offset": [-250.3, -900.1, 7]}
    own = SimpleNamespace(
        **{name: np.float32(v) for name, v in numbers.items()},
        target_scale=None,
        target_offset=None,
    )
    plain = on_host(case.constructor.construct_batch(INDICES).input)
    found = case.constructor.construct_batch(INDICES, normalization=own).input
    scale, offset = (v.reshape(3, 1, 1) for v in (own.input_scale, own.input_offset))
    reference.assert_same(found, plain * scale + offset)


# ---- and back ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [500.37, 65_000.123, 1e6 + 1 / 3, 1e8 + 3])
def test_what_is_taken_back_is_within_rounding(mean):
    made = Normalization.mean_std(mean, 2.7)
    values = np.random.default_rng(0).normal(size=(3, 2, 16, 17)).astype(np.float32)
    exact = values.astype(np.float64) * (2.7 + 1e-6) + mean
    error = np.abs(made.denormalize(values) - exact)
    half = np.spacing(exact.astype(np.float32)) / 2
    # and that of the small product
    assert (error <= half + 1e-6).all()


@pytest.mark.parametrize("n_samples", [1, 3])
@pytest.mark.parametrize("blend", ["crop", "hann", "gaussian"])
def test_blended_tiles_are_taken_back_within_rounding(blend, n_samples, device):
    """However many tiles count at a pixel, the background is added once."""
    image = pixels(SIGNALS["65000 ± 2"], 1, (45, 61), 4)
    stack = gpu_patch.ImageStack.from_array(image, "SCYX", device=device)
    made = Normalization.mean_std(65_000.123, 2.1)
    # any three calls in a row have the mean 0 and the standard deviation 0.5
    change = cycle([np.float32(v) for v in (-0.5, 0, 0.5)])

    def model(x):
        if n_samples == 1:
            return x
        values = on_host(x) + next(change)
        return values if device == "cpu" else devices.to_cuda(values, "cuda:0")

    found = predict(
        stack,
        model,
        tile_size=(16, 16),
        overlaps=(8, 8),
        blend=blend,
        batch_size=7,
        n_samples=n_samples,
        normalization=made,
        progress=False,
    )
    assert np.abs(found.images[0] - image).max() <= np.spacing(np.float32(65_000)) / 2
    if n_samples > 1:
        np.testing.assert_allclose(found.std[0], 0.5 * 2.1, rtol=1e-5)
