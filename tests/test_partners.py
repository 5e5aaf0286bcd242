"""Places of the other channels of uncorrelated samples: anywhere, or near the first channel's."""

from __future__ import annotations

import numpy as np
import pytest
from chunk_readers import ArrayReader
from pixels import distinct

import gpu_patch
from gpu_patch.chunks import image as chunk_image
from gpu_patch.constructors.partners import N_CANDIDATES
from gpu_patch.draws import DrawPurpose, DrawSpec
from gpu_patch.feed import BatchLoader
from gpu_patch.images import ImageStack, PatchExtractor
from gpu_patch.ops.draws import CounterDraws
from gpu_patch.pages import PageCache

SIZES = [(2, 300, 70), (1, 60, 410), (1, 64, 65)]
SEED, EPOCH = 9, 3


def extractor(sizes=SIZES, n_channels=3):
    pixels = [distinct((s, n_channels, *size), "uint16", i) for i, (s, *size) in enumerate(sizes)]
    return PatchExtractor([ImageStack.from_array(a, "SCYX", device="cpu") for a in pixels])


def constructor(images, partners, prob=0.6, strategy=gpu_patch.RandomPatching):
    placed = strategy(images.shapes, (12, 10), seed=1)
    if partners == "excluding":
        placed, partners = gpu_patch.StratifiedPatching(images.shapes, (12, 10), seed=1), "near"
        for sample in range(2):
            placed.exclude_patches(0, sample, [(row, 0) for row in range(12)])
    ranges = [(0.2, 1)] * images.n_channels
    return gpu_patch.MultiChannelTargetMsPatchConstr(
        placed, images, 2, "reflect", ranges, prob, seed=SEED, partners=partners
    )


def nearest(made, index, c, shapes):
    """The slow way: each candidate placed by itself."""
    strategy = made.patching_strategy
    own = strategy.locate(np.array([index]), first_uniforms(made, index))
    image = int(own.data_idx[0])
    patches = list(strategy.get_patch_indices(image))
    specs = [
        DrawSpec(DrawPurpose.PARTNER, c, N_CANDIDATES),
        DrawSpec(DrawPurpose.LOCATION, c, N_CANDIDATES * strategy.n_uniforms),
    ]
    which, uniforms = CounterDraws(specs)(SEED, EPOCH, np.array([index]))
    size = shapes[image][2:]
    longest = int(np.argmax(size))
    found = []
    for k in range(N_CANDIDATES):
        other = patches[int(which[k, 0] * len(patches))]
        place = strategy.locate(np.array([other]), uniforms[k::N_CANDIDATES])
        far = sum(
            abs(int(a) - int(b)) * (1 if axis == longest else 0.25)
            for axis, (a, b) in enumerate(zip(place.coords[0], own.coords[0], strict=True))
        )
        far += sum(size) * int(place.sample_idx[0] != own.sample_idx[0])
        found.append((far, k, place.spec(0)))
    return min(found, key=lambda each: each[:2])[2]


def first_uniforms(made, index):
    spec = DrawSpec(DrawPurpose.LOCATION, 0, made.patching_strategy.n_uniforms)
    return CounterDraws([spec])(SEED, EPOCH, np.array([index]))[0]


@pytest.mark.parametrize("kind", ["random", "stratified", "excluding", "sequential"])
def test_a_near_partner_is_the_nearest_of_its_candidates(kind):
    images = extractor()
    made = {
        "random": lambda: constructor(images, "near"),
        "stratified": lambda: constructor(images, "near", strategy=gpu_patch.StratifiedPatching),
        "excluding": lambda: constructor(images, "excluding"),
        "sequential": lambda: gpu_patch.MultiChannelTargetMsPatchConstr(
            gpu_patch.SequentialPatching(images.shapes, (12, 10)), images, 2, "reflect", None, 0.6,
            seed=SEED, partners="near",
        ),
    }[kind]()  # fmt: skip
    index = np.arange(0, made.n_patches, 7)
    specs = made.construct_batch(index, epoch=EPOCH).specs
    n_uncorrelated = 0
    for i, spec in zip(index.tolist(), specs, strict=True):
        if "principal_channel" not in spec:
            continue
        n_uncorrelated += 1
        for c in (1, 2):
            expected = nearest(made, i, c, images.shapes)
            for key in ("data_idx", "sample_idx", "coords"):
                assert spec[f"all_{key}"][c] == expected[key]
    assert n_uncorrelated > len(index) / 3


def test_batches_do_not_depend_on_their_neighbours():
    made, again = (constructor(extractor(), "near") for _ in range(2))
    index = np.random.default_rng(0).permutation(made.n_patches)
    together = made.construct_batch(index, epoch=EPOCH)
    for part in np.array_split(index, 5):  # the plans of all from the second on
        batch = again.construct_batch(part, epoch=EPOCH)
        rows = [int(np.flatnonzero(index == i)[0]) for i in part]
        np.testing.assert_array_equal(batch.input, together.input[rows])
        np.testing.assert_array_equal(batch.target, together.target[rows])


def test_patches_excluded_later_are_no_partners():
    images = extractor(sizes=[(1, 120, 40)])
    placed = gpu_patch.StratifiedPatching(images.shapes, (12, 10), seed=1)
    made = gpu_patch.MultiChannelTargetMsPatchConstr(
        placed, images, 1, "reflect", None, 1.0, seed=SEED, partners="near"
    )
    made.construct_batch(range(made.n_patches))
    placed.exclude_patches(0, 0, [(row, column) for row in range(5) for column in range(4)])
    specs = made.construct_batch(range(made.n_patches)).specs
    assert all(coords[0] >= 60 for spec in specs for coords in spec["all_coords"])


def test_a_sweep_reads_less_for_near_partners(monkeypatch):
    monkeypatch.setattr(chunk_image, "_LEAST_BYTES", 0)
    pixels = distinct((1, 2, 512, 256), "uint16")

    def share_read(partners):
        cache = PageCache(pixels.nbytes // 4)
        stack = ImageStack.by_chunk(ArrayReader(pixels, (1, 1, 8, 32)), cache=cache)
        paged = constructor(PatchExtractor([stack]), partners, 0.5)
        for _ in BatchLoader(paged, 16, order="sweep", prefetch=0):
            pass
        return cache.traffic.bytes_moved / pixels.nbytes

    near, anywhere = share_read("near"), share_read("anywhere")
    assert near < 0.6 * anywhere


def test_partners_have_two_words():
    with pytest.raises(ValueError, match="partners must be one of 'anywhere', 'near', found 'far'"):
        constructor(extractor(), "far")
