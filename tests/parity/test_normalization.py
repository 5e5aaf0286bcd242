"""Normalisation and its statistics through careamics 0.3.5 and through this package."""

import warnings

import numpy as np
import pytest
from builders import OURS, make_constructor
from pixels import distinct

from gpu_patch.feed import Normalization, compute_normalization

pytest.importorskip("careamics", reason="the live comparison needs careamics 0.3.5")

from builders import KINDS, UPSTREAM
from careamics.config.data.normalization_config import (
    MeanStdConfig,
    MinMaxConfig,
    NoNormConfig,
    QuantileConfig,
)
from careamics.dataset.normalization import create_normalization, resolve_normalization_config

CONSTRUCTORS = ("basic_without_target", *KINDS)
CONFIGS = {"mean_std": MeanStdConfig, "min_max": MinMaxConfig, "quantile": QuantileConfig}
TOLERANCE = 1e-5
"""Of normalised values, which are of the order of 1."""


def growing(shapes, n_channels, dtype, seed, width):
    """Images of which each has a wider range of values than the one before, at both ends."""
    images = []
    for i, shape in enumerate(shapes):
        values = distinct((shape[0], n_channels, *shape[1:]), "int16", seed + i) / 2**15
        images.append((2 * width + values * width * (i + 1) / len(shapes)).astype(dtype))
    return images


def make_pair(
    kind,
    *,
    n_dims=2,
    strategy="random",
    mode="reflect",
    probability=0.5,
    ranges=True,
    width=1500,
):
    """Our constructor and upstream's, with generators in the same state."""
    case_kind = kind.removesuffix("_without_target")
    size = [8, 7] if n_dims == 2 else [3, 6, 5]
    shapes = [(2, 33, 24), (1, 20, 41), (3, 26, 19)]
    others = [(1, 27, 22), (2, 18, 31)]
    if n_dims == 3:
        shapes, others = ([(s, 7, y // 2, x // 2) for s, y, x in some] for some in (shapes, others))
    n_channels = {"basic": 3, "multichannel": 3}.get(case_kind, 1)
    images = {"input": growing(shapes, n_channels, "uint16", 1, width)}
    if kind in ("basic", "paired"):
        images["target"] = growing(shapes, 2, "float32", 5, width)
    if kind == "independent":
        images = {
            "sources": [
                growing(shapes, 1, "uint16", 1, width),
                growing(others, 1, "float32", 9, width),
            ]
        }
        n_channels = 2
    case = {
        "kind": case_kind,
        "strategy": strategy,
        "patch_size": size,
        "overlaps": [2] * n_dims,
        "multiscale_count": 3,
        "padding_mode": mode,
        "channels": [2, 0] if n_channels == 3 else None,
        "alpha_ranges": [(0.2, 0.9), (0.5, 0.5), (0.1, 1.5)][:n_channels] if ranges else None,
        "uncorrelated_channel_prob": probability,
        "strategy_seed": 3,
        "rng_seed": 4,
        "fixed_patch_specs": [
            {"data_idx": i, "sample_idx": 0, "coords": coords, "patch_size": tuple(size)}
            for i, shape in enumerate(shapes)
            for coords in (
                tuple(-(p // 2) for p in size),
                tuple(n - p // 2 - 1 for n, p in zip(shape[1:], size, strict=True)),
                (1,) * n_dims,
            )
        ],
    }
    return make_constructor(OURS, case, images), make_constructor(UPSTREAM, case, images)


def quietly(call, *args):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(*args)


def assert_same_normalization(ours, config, patches):
    """Both do the same to patches (input, target), and back."""
    theirs = create_normalization(config)
    for principal, target in patches:
        expected, expected_target = theirs(principal, target)
        shape = (-1, *[1] * (principal.ndim - 1))
        found = principal * ours.input_scale.reshape(shape) + ours.input_offset.reshape(shape)
        assert np.abs(expected).max() < 20
        assert np.abs(found - expected).max() <= TOLERANCE
        if target is not None and ours.target_scale is not None:
            found = target * ours.target_scale.reshape(shape) + ours.target_offset.reshape(shape)
            assert np.abs(found - expected_target).max() <= TOLERANCE
        elif target is not None:
            np.testing.assert_array_equal(expected_target, target)
        assert_same_inverse(ours, theirs, expected_target if target is not None else expected)


def assert_same_inverse(ours, theirs, prediction):
    torch = pytest.importorskip("torch", reason="careamics denormalises tensors")
    tensor = torch.from_numpy(prediction[None].astype(np.float32))
    expected = theirs.denormalize(tensor)
    found = ours.denormalize(tensor)
    assert found.dtype == expected.dtype == torch.float32
    assert found.shape == expected.shape
    error = (found - expected).abs().max()
    assert error <= TOLERANCE * (expected.max() - expected.min())
    np.testing.assert_array_equal(ours.denormalize(tensor.numpy()), found.numpy())


def compare(pair, kind, *, per_channel=True, skip_target=False, levels=(0.01, 0.99)):
    """Compute both statistics, and compare them and what they do."""
    ours, theirs = pair
    settings = {"per_channel": per_channel, "skip_target": skip_target}
    quantiles = {}
    if kind == "quantile":
        quantiles = {"lower_quantiles": levels[0], "upper_quantiles": levels[1]}
    config = quietly(resolve_normalization_config, CONFIGS[kind](**settings, **quantiles), theirs)
    found = compute_normalization(
        ours,
        kind,
        **settings,
        lower=levels[0],
        upper=levels[1],
        upstream_draws=True,
        quantile_method="careamics",
    )
    expected = Normalization.from_careamics(config)
    assert (
        (found.kind, found.skip_target)
        == (expected.kind, expected.skip_target)
        == (
            kind,
            skip_target,
        )
    )
    for statistics in ("input_statistics", "target_statistics"):
        first, second = getattr(found, statistics), getattr(expected, statistics)
        if second is None:
            assert first is None
            continue
        a, b = np.array(first), np.array(second)
        assert a.shape == b.shape
        width = b[1] if kind == "mean_std" else b[1] - b[0]
        assert (np.abs(a - b) <= TOLERANCE * width).all(), (first, second)
    patches = []
    for index in range(0, theirs.n_patches, 5):
        inputs, target, _ = theirs.construct_patch(index)
        patches.append((np.float32(theirs.get_principal_input(inputs)), target))
    for normalization in (found, expected):
        assert_same_normalization(normalization, config, patches)
    return found


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("kind", CONSTRUCTORS)
def test_statistics_of_random_patches(kind, name, per_channel):
    ours, theirs = make_pair(kind)
    compare((ours, theirs), name, per_channel=per_channel)
    # both have drawn alike; `compare` then made some of their patches
    for index in range(0, ours.n_patches, 5):
        ours.construct_patch(index)
    np.testing.assert_allclose(ours.construct_patch(3)[0], theirs.construct_patch(3)[0], rtol=1e-5)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("kind", CONSTRUCTORS)
def test_statistics_of_volumes(kind, name):
    compare(make_pair(kind, n_dims=3, strategy="fixed_random"), name)


@pytest.mark.parametrize("mode", ["reflect", "wrap"])
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("kind", [kind for kind in CONSTRUCTORS if kind != "independent"])
def test_statistics_of_patches_over_the_border(kind, name, mode):
    compare(make_pair(kind, strategy="fixed", mode=mode), name)


@pytest.mark.parametrize("probability", [0.0, 1.0])
@pytest.mark.parametrize("name", CONFIGS)
def test_statistics_of_equal_weights(name, probability):
    compare(make_pair("multichannel", probability=probability, ranges=False), name)


@pytest.mark.parametrize("kind", CONSTRUCTORS)
def test_skipped_targets(kind):
    found = compare(make_pair(kind), "mean_std", skip_target=True)
    assert found.target_scale is None


@pytest.mark.parametrize("levels", [(0.0, 1.0), (0.3, 0.5), (0.001, 0.999)])
def test_other_quantiles(levels):
    compare(make_pair("multichannel"), "quantile", levels=levels)


def test_quantiles_per_channel():
    compare(make_pair("basic"), "quantile", levels=([0.05, 0.2], [0.7, 0.95]))


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("kind", ["basic", "multichannel", "independent"])
def test_whole_numbers_fill_few_bins(kind, per_channel):
    """Then a quantile depends on where in its bin a value lies."""
    pair = make_pair(kind, ranges=False, probability=0, width=4)
    compare(pair, "quantile", per_channel=per_channel)


def test_no_normalization():
    ours = compute_normalization(make_pair("basic")[0], "none")
    assert ours == Normalization.none() == Normalization.from_careamics(NoNormConfig())
    patch = np.arange(18, dtype=np.float32).reshape(2, 3, 3)
    assert_same_normalization(ours, NoNormConfig(), [(patch, patch)])


@pytest.mark.parametrize("config", [MeanStdConfig(), MinMaxConfig(), QuantileConfig()])
def test_configs_without_numbers_are_refused(config):
    with pytest.raises(ValueError, match="resolve_normalization_config"):
        Normalization.from_careamics(config)


@pytest.mark.parametrize(
    "config",
    [
        MeanStdConfig(input_means=[100, 2000], input_stds=[20, 400]),
        MeanStdConfig(
            per_channel=False, input_means=7, input_stds=2, target_means=3, target_stds=1
        ),
        MinMaxConfig(
            input_mins=[1, 2], input_maxes=[3, 5], target_mins=[0, 0], target_maxes=[1, 9]
        ),
        MinMaxConfig(input_mins=0, input_maxes=1e-7, skip_target=True),
        QuantileConfig(input_lower_quantile_values=[5], input_upper_quantile_values=[250]),
    ],
)
def test_known_numbers(config):
    ours = Normalization.from_careamics(config)
    rng = np.random.default_rng(0)
    statistics = np.array(ours.input_statistics)
    low, high = statistics if ours.kind != "mean_std" else (statistics[0], statistics.sum(axis=0))
    values = low[:, None, None] + (high - low)[:, None, None] * rng.random((len(low), 5, 6))
    patch = values.astype(np.float32)
    target = patch if ours.target_statistics or ours.skip_target else None
    assert_same_normalization(ours, config, [(patch, target)])
