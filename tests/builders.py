"""Makes constructors from the parameters of a recorded case, of gpu_patch or of careamics."""

from __future__ import annotations

import warnings
from functools import cache, partial
from types import SimpleNamespace

import numpy as np
from reference import on_host

import gpu_patch

CONSTRUCTORS = {
    "basic": "BasicPatchConstr",
    "multichannel": "MultiChannelTargetMsPatchConstr",
    "independent": "IndependentTargetsMsPatchConstr",
    "paired": "PairedInputTargetMsPatchConstr",
    "pred": "PredMsPatchConstr",
}
"""Class of each kind, of the same name in careamics."""
KINDS = tuple(CONSTRUCTORS)


def ours(device):
    """The names of gpu_patch, with all images on one device."""
    return SimpleNamespace(
        stack=partial(gpu_patch.ImageStack.from_array, device=device),
        extractor=gpu_patch.PatchExtractor,
        random=gpu_patch.RandomPatching,
        fixed_random=gpu_patch.FixedRandomPatching,
        sequential=gpu_patch.SequentialPatching,
        tiled=gpu_patch.TiledPatching,
        whole=gpu_patch.WholeSamplePatching,
        fixed=gpu_patch.FixedPatching,
        **{kind: getattr(gpu_patch, name) for kind, name in CONSTRUCTORS.items()},
    )


OURS = ours("cpu")


@cache
def _upstream():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from careamics.dataset import patch_constructor, patching
        from careamics.dataset.image_stack import InMemoryImageStack
        from careamics.dataset.patch_extractor import PatchExtractor
    return SimpleNamespace(
        stack=InMemoryImageStack.from_array,
        extractor=PatchExtractor,
        random=patching.RandomPatching,
        fixed_random=patching.FixedRandomPatching,
        sequential=patching.SequentialPatching,
        tiled=patching.TiledPatching,
        whole=patching.WholeSamplePatching,
        fixed=patching.FixedPatching,
        **{kind: getattr(patch_constructor, name) for kind, name in CONSTRUCTORS.items()},
    )


def __getattr__(name):
    """`UPSTREAM`, the same names of careamics: imported where a test asks for it."""
    if name == "UPSTREAM":
        return _upstream()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def make_extractor(library, arrays):
    """An extractor of arrays with the axes SC(Z)YX."""
    axes = "SCYX" if arrays[0].ndim == 4 else "SCZYX"
    return library.extractor([library.stack(array, axes) for array in arrays])


def make_strategy(library, case, shapes, seed):
    """The case's patching strategy."""
    kind = case["strategy"]
    size = tuple(case["patch_size"])
    if kind == "tiled":
        return library.tiled(shapes, size, tuple(case["overlaps"]))
    if kind == "sequential":
        return library.sequential(shapes, size, case.get("sequential_overlaps"))
    if kind == "whole":
        return library.whole(shapes)
    if kind == "fixed":
        return library.fixed(case["fixed_patch_specs"])
    return getattr(library, kind)(shapes, size, seed)


def make_constructor(library, case, images):
    """The case's constructor.

    `images` maps "input" and "target" to lists of arrays, and "sources" to a list of such lists.
    """
    kind, rng = case["kind"], np.random.default_rng(case["rng_seed"])
    ranges = case.get("alpha_ranges")
    ranges = None if ranges is None else [tuple(pair) for pair in ranges]
    scales, mode, seed = case["multiscale_count"], case["padding_mode"], case["strategy_seed"]
    if kind == "independent":
        extractors = [make_extractor(library, arrays) for arrays in images["sources"]]
        strategies = [
            make_strategy(library, case, extractor.shapes, seed + i)
            for i, extractor in enumerate(extractors)
        ]
        return library.independent(strategies, extractors, scales, mode, ranges, rng)
    target = make_extractor(library, images["target"]) if "target" in images else None
    inputs = make_extractor(library, images["input"])
    strategy = make_strategy(library, case, inputs.shapes, seed)
    if kind == "basic":
        return library.basic(strategy, inputs, target, case["channels"])
    if kind == "multichannel":
        prob = case["uncorrelated_channel_prob"]
        return library.multichannel(
            strategy, inputs, scales, mode, ranges, prob, case["channels"], rng
        )
    if kind == "paired":
        return library.paired(strategy, inputs, target, scales, mode)
    return library.pred(strategy, inputs, scales, mode)


def plain(value):
    """Tuples as lists, as JSON has them."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def assert_close(actual, upstream):
    """Equal to upstream within 1e-6 of its largest value (docs/specification.md, 9)."""
    actual = on_host(actual)
    assert actual.shape == upstream.shape
    assert actual.dtype == np.float32
    assert np.abs(actual - upstream).max() <= 1e-6 * np.abs(upstream).max()
