"""Sequential and tiled patching against loops written from docs/specification.md, 6."""

import itertools

import numpy as np
import pytest

from gpu_patch import SequentialPatching, TiledPatching


def sequential_starts(n, patch, overlap):
    """Every patch − overlap while patches fit, then one flush to the end."""
    starts, at = [], 0
    while at + patch <= n:
        starts.append(at)
        at += patch - overlap
    if not starts:
        return [0]
    if starts[-1] + patch < n:
        starts.append(n - patch)
    return starts


def tiles(n, patch, overlap):
    """(start, crop, kept, stitch) of each tile of an axis."""
    found = []
    for i in range(0, max(1, n - overlap), patch - overlap):
        if i == 0:
            found.append((0, 0, n if n <= patch else patch - overlap // 2, 0))
        elif i + patch < n:
            found.append((i, overlap // 2, patch - overlap, i + overlap // 2))
        else:
            start = max(0, n - patch)
            stitch = found[-1][3] + found[-1][2]
            found.append((start, stitch - start, n - stitch, stitch))
    return found


def expected_specs(shapes, patch_size, overlaps, axis_of):
    """Specs in the order of images, samples, and a grid whose last axis runs fastest."""
    for data_idx, (n_samples, _, *size) in enumerate(shapes):
        axes = [axis_of(*numbers) for numbers in zip(size, patch_size, overlaps, strict=True)]
        for sample_idx in range(n_samples):
            for place in itertools.product(*axes):
                spec = {"data_idx": data_idx, "sample_idx": sample_idx, "patch_size": patch_size}
                if axis_of is sequential_starts:
                    yield {**spec, "coords": place}
                    continue
                names = ("coords", "crop_coords", "crop_size", "stitch_coords")
                tile = dict(zip(names, zip(*place, strict=True), strict=True))
                yield {**spec, **tile, "total_tiles": n_samples * int(np.prod([*map(len, axes)]))}


RAGGED = [(2, 1, 20, 33), (1, 1, 7, 50), (3, 1, 8, 8), (1, 1, 5, 4)]
CASES = [
    (RAGGED, (8, 8), (0, 0)),
    (RAGGED, (8, 8), (4, 2)),
    (RAGGED, (8, 8), (7, 7)),
    (RAGGED, (5, 9), (3, 1)),
    (RAGGED, (64, 64), (16, 8)),  # larger than the images
    (RAGGED, (1, 1), (0, 0)),
    ([(1, 3, 6, 20, 17), (2, 3, 9, 9, 9)], (4, 8, 5), (2, 4, 0)),
    ([(2, 1, 3, 4, 40)], (4, 8, 8), (1, 2, 6)),
    ([(1, 1, 1, 1)], (8, 8), (4, 4)),
    ([(1, 1, 64, 64)], (16, 16), (0, 8)),
]
cases = pytest.mark.parametrize(("shapes", "patch_size", "overlaps"), CASES)


def check(strategy, expected, n_images):
    expected = list(expected)
    assert strategy.n_patches == len(expected)
    found = [strategy.get_patch_spec(i) for i in range(strategy.n_patches)]
    assert found == expected
    assert [strategy.get_patch_spec(i) for i in range(-len(found), 0)] == expected
    for spec in found:
        for value in spec.values():
            values = value if isinstance(value, tuple) else (value,)
            assert {type(number) for number in values} == {int}
    for data_idx in range(-n_images, n_images):
        indices = strategy.get_patch_indices(data_idx)
        at = data_idx % n_images
        assert list(indices) == [i for i, spec in enumerate(expected) if spec["data_idx"] == at]


@cases
def test_sequential(shapes, patch_size, overlaps):
    expected = expected_specs(shapes, patch_size, overlaps, sequential_starts)
    check(SequentialPatching(shapes, patch_size, overlaps), expected, len(shapes))


@cases
def test_tiled(shapes, patch_size, overlaps):
    expected = expected_specs(shapes, patch_size, overlaps, tiles)
    check(TiledPatching(shapes, patch_size, overlaps), expected, len(shapes))


@pytest.mark.parametrize("overlaps", [None, (0, 0), [0, 0], np.array([0, 0])])
def test_no_overlap_is_the_default_of_sequential(overlaps):
    strategy = SequentialPatching(RAGGED, (8, 8), overlaps)
    check(strategy, expected_specs(RAGGED, (8, 8), (0, 0), sequential_starts), len(RAGGED))


def test_single_axes_of_every_size():
    for n, patch in itertools.product(range(1, 26), range(1, 9)):
        for overlap in range(patch):
            shapes, size, overlaps = [(1, 1, 1, n)], (1, patch), (0, overlap)
            for kind, axis_of in (
                (SequentialPatching, sequential_starts),
                (TiledPatching, tiles),
            ):
                strategy = kind(shapes, size, overlaps)
                found = [strategy.get_patch_spec(i) for i in range(strategy.n_patches)]
                assert found == list(expected_specs(shapes, size, overlaps, axis_of))


def box(start, size):
    """The pixels of a patch as an index."""
    return tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))


def covered(strategy, shapes, start, size):
    """How often each pixel of each image is in a patch, or in what is kept of a tile."""
    counts = [np.zeros((shape[0], *shape[2:]), int) for shape in shapes]
    for i in range(strategy.n_patches):
        spec = strategy.get_patch_spec(i)
        counts[spec["data_idx"]][(spec["sample_idx"], *box(spec[start], spec[size]))] += 1
    return counts


@cases
def test_sequential_covers_every_pixel(shapes, patch_size, overlaps):
    strategy = SequentialPatching(shapes, patch_size, overlaps)
    assert all(c.min() >= 1 for c in covered(strategy, shapes, "coords", "patch_size"))


@cases
def test_tiles_keep_every_pixel_once(shapes, patch_size, overlaps):
    strategy = TiledPatching(shapes, patch_size, overlaps)
    counts = covered(strategy, shapes, "stitch_coords", "crop_size")
    assert all(count.min() == 1 for count in counts)
    if all(overlap % 2 == 0 for overlap in overlaps):
        assert all(count.max() == 1 for count in counts)


@cases
def test_stitched_tiles_are_the_image(shapes, patch_size, overlaps):
    strategy = TiledPatching(shapes, patch_size, overlaps)
    images = [np.arange(np.prod(s)).reshape(s)[:, 0].astype(float) for s in shapes]
    stitched = [np.full_like(image, np.nan) for image in images]
    n_tiles = np.zeros(len(shapes), int)
    for i in range(strategy.n_patches):
        spec = strategy.get_patch_spec(i)
        at = spec["data_idx"], spec["sample_idx"]
        image = images[at[0]][at[1]]
        padded = np.pad(image, [(0, p) for p in patch_size])  # tiles may be larger than the image
        tile = padded[box(spec["coords"], patch_size)]
        kept = tile[box(spec["crop_coords"], spec["crop_size"])]
        stitched[at[0]][at[1]][box(spec["stitch_coords"], spec["crop_size"])] = kept
        n_tiles[at[0]] += 1
        assert spec["total_tiles"] == len(strategy.get_patch_indices(at[0]))
    assert all(np.array_equal(a, b) for a, b in zip(stitched, images, strict=True))
    assert n_tiles.tolist() == [len(strategy.get_patch_indices(i)) for i in range(len(shapes))]
