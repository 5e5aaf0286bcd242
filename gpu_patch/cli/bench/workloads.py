"""What the bench runs: constructors on random images, of this package and of careamics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import gpu_patch

CONSTRUCTORS = (
    "basic",
    "basic-target",
    "multichannel",
    "independent",
    "paired",
    "pred",
    "multichannel-3d",
)
USUAL_BATCH = 32
WITHOUT_SCALES = ("basic", "basic-target")
_SCALES_3D = 3
_ALPHA_RANGE = (0.2, 0.8)
_SCALES, _QUICK_SCALES = [1, 2, 3, 4, 5], [1, 4]
_BUDGET, _QUICK_BUDGET = {"cpu": 2.0, "cuda": 1.0}, {"cpu": 0.3, "cuda": 0.2}
"""Seconds for each workload."""


class Case(NamedTuple):
    """A constructor and its number of scales, 0 where it has no context."""

    constructor: str
    n_scales: int

    @property
    def patch_size(self) -> tuple[int, ...]:
        """Pixels, (Z)YX."""
        return (16, 64, 64) if self.constructor == "multichannel-3d" else (64, 64)

    def images(self) -> NDArray[np.uint16]:
        """Return random pixels with two channels, SC(Z)YX."""
        flat = len(self.patch_size) == 2
        shape = (1, 2, 2048, 2048) if flat else (1, 2, 64, 512, 512)
        return np.random.default_rng(0).integers(0, 4096, shape, np.uint16)

    def window_bytes(self, batch_size: int, itemsize: int) -> int:
        """Return the bytes of the largest windows of a batch's inputs."""
        n_channels = 1 if self.constructor in ("paired", "pred") else 2
        window = prod(p << max(self.n_scales - 1, 0) for p in self.patch_size)
        return batch_size * n_channels * window * itemsize


class Workload(NamedTuple):
    """Batches to time: a case, and how many patches they have."""

    constructor: str
    n_scales: int
    batch_size: int

    @property
    def case(self) -> Case:
        """What makes the batches."""
        return Case(self.constructor, self.n_scales)

    @property
    def window_side(self) -> int:
        """Pixels a side of the largest windows."""
        return self.case.patch_size[-1] << max(self.n_scales - 1, 0)


def workloads_of(
    constructors: Sequence[str], scales: Sequence[int], batch_sizes: Sequence[int]
) -> list[Workload]:
    """Return every case with every batch size."""
    return [Workload(*case, size) for case in cases(constructors, scales) for size in batch_sizes]


def curves(quick: bool) -> list[Workload]:
    """Return what shows how the time grows: with the scales, then with the batch."""
    scales, batch_sizes = ([1, 2, 4], [1, 256]) if quick else ([1, 2, 3, 4, 5], [1, 4, 16, 64, 256])
    return workloads_of(["multichannel"], scales, [USUAL_BATCH]) + workloads_of(
        ["multichannel"], [4], batch_sizes
    )


def settings_of(
    device: str,
    *,
    quick: bool = False,
    constructors: Sequence[str] | None = None,
    scales: Sequence[int] | None = None,
    batch_sizes: Sequence[int] | None = None,
    workloads: Sequence[Workload] | None = None,
) -> dict[str, Any]:
    """Return what to measure on a device: the usual workloads, or those asked for."""
    on_cpu = device == "cpu"
    if on_cpu:
        usual = workloads_of(
            constructors or CONSTRUCTORS,
            scales or (_QUICK_SCALES if quick else _SCALES),
            batch_sizes or [USUAL_BATCH],
        )
    elif constructors is None and scales is None and batch_sizes is None:
        usual = CUDA_WORKLOADS if quick else CUDA_WORKLOADS + OTHER_CUDA_WORKLOADS
    else:
        usual = workloads_of(
            constructors or ["multichannel"], scales or [4], batch_sizes or [USUAL_BATCH]
        )
    return {
        "device": device,
        "workloads": list(workloads or usual),
        "budget": (_QUICK_BUDGET if quick else _BUDGET)["cpu" if on_cpu else "cuda"],
    }


def cases(constructors: Sequence[str], scales: Sequence[int]) -> list[Case]:
    """Return the rows asked for."""
    rows = []
    for name in constructors:
        if name in WITHOUT_SCALES:
            rows.append(Case(name, 0))
        elif name == "multichannel-3d":
            rows.append(Case(name, _SCALES_3D))
        else:
            rows += [Case(name, n) for n in scales]
    return rows


CUDA_WORKLOADS = [
    Workload("multichannel", 4, 32),
    Workload("multichannel", 4, 256),
    Workload("multichannel-3d", 3, 16),
]
"""What must be fast on a GPU."""
OTHER_CUDA_WORKLOADS = workloads_of(["multichannel", "basic"], [1, 2, 3, 5], [32])


def gpu_patch_library(device: str) -> SimpleNamespace:
    """Return what a case needs, of this package."""
    names = {4: "SCYX", 5: "SCZYX"}
    return SimpleNamespace(
        stack=lambda array: gpu_patch.ImageStack(array, names[array.ndim], device=device),
        extractor=gpu_patch.PatchExtractor,
        random=gpu_patch.RandomPatching,
        constructors=gpu_patch,
    )


def careamics_library() -> SimpleNamespace:
    """Return what a case needs, of careamics."""
    from careamics.dataset import patch_constructor
    from careamics.dataset.image_stack import InMemoryImageStack
    from careamics.dataset.patch_extractor import PatchExtractor
    from careamics.dataset.patching import RandomPatching

    return SimpleNamespace(
        stack=lambda array: InMemoryImageStack("array", array),
        extractor=PatchExtractor,
        random=RandomPatching,
        constructors=patch_constructor,
    )


def build(library: SimpleNamespace, case: Case, images: NDArray[np.uint16]) -> Any:
    """Return the constructor of a case; parameters are positional, alike in both libraries."""
    make, n_scales = library.constructors, case.n_scales

    def extractor(*channels: int) -> Any:
        chosen = images if len(channels) == images.shape[1] else images[:, list(channels)]
        return library.extractor([library.stack(chosen)])

    def strategy(seed: int = 0) -> Any:
        shape = (images.shape[0], 1, *images.shape[2:])
        return library.random([shape], case.patch_size, seed)

    ranges = [_ALPHA_RANGE] * 2
    match case.constructor:
        case "basic":
            return make.BasicPatchConstr(strategy(), extractor(0, 1))
        case "basic-target":
            return make.BasicPatchConstr(strategy(), extractor(0, 1), extractor(0, 1))
        case "multichannel" | "multichannel-3d":
            return make.MultiChannelTargetMsPatchConstr(
                strategy(),
                extractor(0, 1),
                n_scales,
                "reflect",
                ranges,
                0.0,
                None,
                np.random.default_rng(0),
            )
        case "independent":
            return make.IndependentTargetsMsPatchConstr(
                [strategy(0), strategy(1)],
                [extractor(0), extractor(1)],
                n_scales,
                "reflect",
                ranges,
                np.random.default_rng(0),
            )
        case "paired":
            return make.PairedInputTargetMsPatchConstr(
                strategy(), extractor(0), extractor(0, 1), n_scales, "reflect"
            )
        case "pred":
            return make.PredMsPatchConstr(strategy(), extractor(0), n_scales, "reflect")
    raise ValueError(f"unknown constructor {case.constructor!r}")


def shuffled_batches(n_patches: int, batch_size: int) -> Iterator[NDArray[np.int64]]:
    """Yield batches of different indices, epoch after epoch in one random order."""
    order = np.random.default_rng(0).permutation(n_patches)
    first = 0
    while True:
        yield order[np.arange(first, first + batch_size) % n_patches]
        first += batch_size
