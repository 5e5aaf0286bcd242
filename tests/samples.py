"""Constructors of every kind with every strategy, and what their batches must hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import builders
import numpy as np
import reference
from pixels import distinct

import gpu_patch
from gpu_patch import geometry

KINDS = builders.KINDS
STRATEGIES = ("random", "fixed_random", "sequential", "tiled", "whole", "fixed", "stratified")
MODES = geometry.PADDING_MODES
RANGES = [(0.2, 0.9), (0.5, 0.5), (0.0, 2.0)]

PATCH_SIZE = {2: (7, 6), 3: (4, 5, 3)}
N_SCALES = {2: 3, 3: 2}
# samples and spatial shape of the images; the third set is mode II's second structure
SHAPES = {
    2: ([(2, 23, 31), (1, 19, 40)], [(1, 19, 40), (3, 8, 9)]),
    3: ([(1, 9, 12, 14), (2, 7, 13, 5)], [(2, 6, 6, 8)]),
}
WHOLE_SHAPES = {
    2: ([(2, 11, 9), (3, 11, 9)], [(4, 11, 9)]),
    3: ([(2, 4, 5, 6)], [(1, 4, 5, 6), (2, 4, 5, 6)]),
}


def make_images(shapes, n_channels, dtypes, seed):
    """Arrays SC(Z)YX; image i has the data type i, going round."""
    return [
        distinct((shape[0], n_channels, *shape[1:]), dtypes[i % len(dtypes)], seed + i)
        for i, shape in enumerate(shapes)
    ]


def make_extractor(images, device="cpu"):
    axes = "SCYX" if images[0].ndim == 4 else "SCZYX"
    return gpu_patch.PatchExtractor(
        [gpu_patch.ImageStack.from_array(image, axes, device=device) for image in images]
    )


def make_strategy(kind, shapes, patch_size, seed=0):
    if kind == "random":
        return gpu_patch.RandomPatching(shapes, patch_size, seed)
    if kind == "fixed_random":
        return gpu_patch.FixedRandomPatching(shapes, patch_size, seed)
    if kind == "stratified":
        strategy = gpu_patch.StratifiedPatching(shapes, patch_size, seed)
        strategy.exclude_patches(0, 0, [(0,) * len(patch_size)])
        return strategy
    if kind == "sequential":
        return gpu_patch.SequentialPatching(shapes, patch_size, [p // 3 for p in patch_size])
    if kind == "tiled":
        return gpu_patch.TiledPatching(shapes, patch_size, [2 * (p // 4) for p in patch_size])
    if kind == "whole":
        return gpu_patch.WholeSamplePatching(shapes)
    return gpu_patch.FixedPatching(fixed_specs(shapes, patch_size))


def fixed_specs(shapes, patch_size):
    """Places in each sample, some of which stick out of the image; plain Python numbers."""
    rng = np.random.default_rng(5)
    size = np.array(patch_size)
    return [
        {
            "data_idx": data_idx,
            "sample_idx": sample_idx,
            "coords": tuple((rng.integers(0, shape[2:]) - size // 2).tolist()),
            "patch_size": tuple(patch_size),
        }
        for data_idx, shape in enumerate(shapes)
        for sample_idx in range(shape[0])
        for _ in range(4)
    ]


@dataclass
class Sample:
    """A constructor and what it was made from."""

    kind: str
    strategy: str
    constructor: Any
    mode: str
    n_scales: int
    seed: int
    # per channel: the images it is read from, and the channel in them
    sources: list[tuple[list[np.ndarray], int]]
    targets: list[np.ndarray] | None = None
    ranges: list[tuple[float, float]] | None = None
    strategies: list[Any] = field(default_factory=list)

    def weights(self, epoch, index):
        """Mixing weights of a batch's patch, from the documented counters."""
        n = len(self.sources)
        if self.kind in ("basic", "paired", "pred"):
            return np.ones(n, np.float32)
        if self.ranges is None:
            return np.full(n, 1 / n, np.float32)
        drawn = [
            low + (high - low) * reference.uniform(self.seed, epoch, index, reference.WEIGHT, c)
            for c, (low, high) in enumerate(self.ranges)
        ]
        return np.array(drawn, np.float32)

    def places(self, spec):
        """(data_idx, sample_idx, coords) of each channel of the input."""
        if "all_coords" in spec:
            return list(
                zip(spec["all_data_idx"], spec["all_sample_idx"], spec["all_coords"], strict=True)
            )
        return [(spec["data_idx"], spec["sample_idx"], spec["coords"])] * len(self.sources)

    def expected(self, spec, weights):
        """Input in float64 and target in float32 that a spec and weights stand for."""
        size = spec["patch_size"]
        volumes = [
            (images[data_idx][sample_idx, channel], coords)
            for (images, channel), (data_idx, sample_idx, coords) in zip(
                self.sources, self.places(spec), strict=True
            )
        ]
        if self.kind == "basic":
            inputs = np.stack([plain(volume, coords, size) for volume, coords in volumes])
        else:
            inputs = sum(
                float(weight) * reference.pyramid(volume, coords, size, self.n_scales, self.mode)
                for weight, (volume, coords) in zip(weights, volumes, strict=True)
            )
        if self.kind in ("multichannel", "independent"):
            target = [
                reference.window(volume, coords, size, 0, self.n_scales, self.mode)
                for volume, coords in volumes
            ]
        elif self.targets is None:
            return inputs, None
        else:
            image = self.targets[spec["data_idx"]][spec["sample_idx"]]
            target = [plain(volume, spec["coords"], size) for volume in image]
        return inputs, np.stack(target).astype(np.float32)


def plain(volume, coords, size):
    return reference.window(volume, coords, size, 0, 0, "zero")


def make_sample(
    kind,
    strategy="random",
    n_dims=2,
    *,
    mode="reflect",
    seed=7,
    ranges=RANGES,
    probability=0.5,
    device="cpu",
    patching=None,
    n_structures=3,
    with_target=True,
    channels=(2, 0, 1),
    **absence,
):
    """Make a constructor; the same arguments give an equal one.

    `patching` makes the strategy from the images' shapes and the patch size, where it is none of
    the package's. `absence` is `absent_prob` and `background` of modes I and II.
    """
    patch_size, n_scales = PATCH_SIZE[n_dims], N_SCALES[n_dims]
    first, second = (WHOLE_SHAPES if strategy == "whole" else SHAPES)[n_dims]
    make = patching or (lambda shapes, size: make_strategy(strategy, shapes, size, seed=3))
    if kind == "independent":
        structures = [
            make_images(shapes, 1, dtypes, seed)
            for shapes, dtypes, seed in [
                (second, ["uint8"], 10),
                (first, ["uint16", "float16"], 20),
                (second, ["int16"], 30),
            ]
        ][:n_structures]
        extractors = [make_extractor(images, device) for images in structures]
        strategies = [make(extractor.shapes, patch_size) for extractor in extractors]
        ranges = ranges and ranges[:n_structures]
        constructor = gpu_patch.IndependentTargetsMsPatchConstr(
            strategies, extractors, n_scales, mode, ranges, np.random.default_rng(0),
            seed=seed, **absence,
        )  # fmt: skip
        sources = [(images, 0) for images in structures]
        return Sample(
            kind, strategy, constructor, mode, n_scales, seed, sources, None, ranges, strategies
        )
    if kind == "multichannel":
        images = make_images(first, 3, ["uint16", "uint8"], 10)
    elif kind == "basic":
        images = make_images(first, 3, ["float32", "int16"], 10)
    else:
        images = make_images(first, 1, ["uint16"], 10)
    extractor = make_extractor(images, device)
    patching_strategy = make(extractor.shapes, patch_size)
    targets = make_images(first, 2, ["int8", "float32"], 40)
    sources = [(images, c) for c in (channels if images[0].shape[1] == 3 else (0,))]
    args = (patching_strategy, extractor)
    if kind == "basic":
        targets = targets if with_target else None
        constructor = gpu_patch.BasicPatchConstr(
            *args, make_extractor(targets, device) if with_target else None, channels, seed=seed
        )
    elif kind == "multichannel":
        targets, rng = None, np.random.default_rng(0)
        constructor = gpu_patch.MultiChannelTargetMsPatchConstr(
            *args, n_scales, mode, ranges, probability, channels, rng, seed=seed, **absence
        )
        ranges = ranges and [ranges[c] for c in channels]
    elif kind == "paired":
        constructor = gpu_patch.PairedInputTargetMsPatchConstr(
            *args, make_extractor(targets, device), n_scales, mode, seed=seed
        )
    else:
        targets = None
        constructor = gpu_patch.PredMsPatchConstr(*args, n_scales, mode, seed=seed)
    return Sample(
        kind, strategy, constructor, mode, n_scales, seed, sources, targets, ranges,
        [patching_strategy],
    )  # fmt: skip


def assert_batch_is(sample, batch, indices, epoch, dtype=np.float32):
    """Each patch is what its spec and its weights say."""
    assert len(batch.input) == len(batch.specs) == len(indices)
    for i, (index, spec) in enumerate(zip(indices, batch.specs, strict=True)):
        index %= sample.constructor.n_patches
        inputs, target = sample.expected(spec, sample.weights(epoch, index))
        assert_patch(sample, batch.input[i], inputs)
        if target is None:
            assert batch.target is None
        else:
            reference.assert_same(batch.target[i], target)


def assert_patch(sample, found, expected):
    if sample.kind == "basic":
        reference.assert_same(found, expected.astype(np.float32))
    else:
        reference.assert_filtered(found, expected)


def assert_equal_batches(found, expected):
    """Bit-equal, but for the rounding of filtered values."""
    inputs, expected_inputs = reference.on_host(found.input), reference.on_host(expected.input)
    np.testing.assert_array_equal(inputs[:, 0], expected_inputs[:, 0])
    reference.assert_filtered(inputs, expected_inputs, expected_inputs.dtype)
    if expected.target is None:
        assert found.target is None
    else:
        reference.assert_same(found.target, expected.target)
    assert list(found.specs) == list(expected.specs)


class Foreign:
    """A strategy of somebody else, with draws one after the other."""

    def __init__(self, strategy):
        self.strategy, self.rng = strategy, np.random.default_rng(0)
        self.n_patches = strategy.n_patches

    def get_patch_spec(self, index):
        self.rng.random()
        return self.strategy.get_patch_spec(index)

    def get_patch_indices(self, data_idx):
        return self.strategy.get_patch_indices(data_idx)
