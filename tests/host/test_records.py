"""Records that kernels read: compiled functions make NumPy's, and none of what is not there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cases import DTYPES, Case
from paged import in_slots

from gpu_patch._host import library
from gpu_patch._host.records import HostRecords
from gpu_patch.ops.record_maker import record_maker
from gpu_patch.records import MOST_SHORT, Windows
from gpu_patch.sources import ChannelSources
from gpu_patch.table import ImageTable, short_record

SHAPES = {"square": (8, 8), "2D": (7, 12), "3D": (5, 6, 9)}


def random_case(shape, *, own_places, mode="reflect", seed=0):
    return Case.random(
        seed, SHAPES[shape], 3, mode, n_samples=6, n_channels=3, n_places=3 if own_places else 1,
        dtypes=DTYPES[seed % 3 :: 3],
    )  # fmt: skip


def both(compiled, make):
    """What NumPy makes, and what the compiled functions make."""
    with library.computing(None):
        expected = make()
    with library.computing(compiled):
        return expected, make()


def assert_same_records(compiled, table, case, finished, targets, rows=None):
    window = table, case.sources, case.patch_size, case.n_scales, case.mode
    epilogue = case.epilogue(mixed=True) if finished else None
    contexts = Windows(*window, case.weights, epilogue, targets, rows)

    def full():
        return record_maker().full(contexts)

    def patches():
        of_patches = case.epilogue(mixed=False) if finished else None
        return record_maker().full(Windows(*window, epilogue=of_patches, rows=rows))

    def short():
        memory = np.zeros(case.weights.size + 2, short_record(table.n_dims, finished))
        assert record_maker().short(contexts, memory)
        return [memory]

    for make in (full, patches, short):
        for expected, found in zip(*both(compiled, make), strict=True):
            assert found.dtype == expected.dtype
            for name in found.dtype.names:
                np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


@pytest.mark.parametrize("targets", [False, True])
@pytest.mark.parametrize("finished", [False, True], ids=["plain", "epilogue"])
@pytest.mark.parametrize("own_places", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_as_numpys(compiled, shape, own_places, finished, targets):
    for seed in range(3):
        case = random_case(shape, own_places=own_places, seed=seed)
        table = ImageTable(library.HOST, case.images)
        for rows in (None, np.array([5, 0, 0])):
            assert_same_records(compiled, table, case, finished, targets, rows)


def test_columns_are_prepared_once_for_all_rows(compiled):
    case = random_case("square", own_places=True)
    table, maker = ImageTable(library.HOST, case.images), HostRecords(compiled)
    windows = Windows(table, case.sources, case.patch_size, case.n_scales, "wrap", case.weights)
    whole = maker.full(windows)
    prepared = maker._known[1]
    for rows in (np.array([3]), np.array([5, 0, 0])):
        (own,) = maker.full(windows._replace(rows=rows))
        assert own.tobytes() == whole[0][rows].tobytes()
        assert maker._known[1] is prepared
    moved = case.sources._replace(coords=case.sources.coords + 1)
    (own,) = maker.full(windows._replace(sources=moved))
    np.testing.assert_array_equal(own["coords"][..., 1:], moved.coords)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_same_of_pages(compiled, shape):
    for seed in range(3):
        case = random_case(shape, own_places=seed == 1, seed=seed)
        with in_slots(library.HOST, case, case.n_scales - 1, case.mode) as table:
            assert_same_records(compiled, table, case, True, True)


def test_an_epilogue_of_rows_is_that_of_its_samples(compiled):
    case = random_case("square", own_places=False)
    rows = np.array([4, 0, 4])
    sources = ChannelSources(*(column[rows] for column in case.sources[:3]), case.sources.channels)
    table, weights = ImageTable(library.HOST, case.images), case.weights[rows]
    epilogue = case.epilogue(mixed=True)
    taken = epilogue.room(6)
    for own, given in zip(taken.columns, epilogue.columns, strict=True):
        own[:] = given
    for part in (epilogue.rows(rows), taken.rows(rows)):

        def make(part=part):
            return record_maker().full(Windows(table, sources, (8, 8), 3, "reflect", weights, part))

        for expected, found in zip(*both(compiled, make), strict=True):
            np.testing.assert_array_equal(found, expected)


def moved(case, **changes):
    return replace(case, sources=case.sources._replace(**changes))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"image_idx": [[0], [2]]}, IndexError, "image_idx holds 2, which must be in 0 … 1"),
        ({"image_idx": [[0], [-1]]}, IndexError, "image_idx holds -1"),
        ({"sample_idx": [[2], [0]]}, IndexError, "sample_idx holds 2, which must be in 0 … 1"),
        ({"sample_idx": [[-1], [0]]}, IndexError, "sample_idx holds -1"),
        ({"channels": [0, 3]}, IndexError, "channels holds 3, which must be in 0 … 2"),
        ({"coords": [[[0, 0]], [[0, 2**57]]]}, ValueError, "miss the image"),
        ({"coords": [[[-40, 0]], [[0, 0]]]}, ValueError, "miss the image"),
    ],
)
def test_what_is_not_there_is_refused(compiled, change, error, words):
    dtypes = ["uint16", "uint8"]
    case = Case.random(3, (8, 8), 2, "reflect", dtypes=dtypes, least=12, most=12)
    sources = case.sources._replace(
        image_idx=np.array([[0], [1]]), coords=np.zeros((2, 1, 2), np.int64)
    )
    case = replace(case, sources=sources)
    table = ImageTable(library.HOST, case.images)
    window = case.patch_size, case.n_scales, case.mode
    # the last places that are possible
    for at in (-8 - 11, 12 + 11):
        edge = np.full((2, 1, 2), at)
        assert record_maker().full(Windows(table, sources._replace(coords=edge), *window))
    wrong = sources._replace(**{name: np.array(value) for name, value in change.items()})
    memory = np.zeros(4, short_record(2, False))
    for choice in (None, compiled):
        with library.computing(choice):
            with pytest.raises(error, match=words):
                record_maker().full(Windows(table, wrong, *window))
            with pytest.raises(error, match=words):
                record_maker().short(Windows(table, wrong, *window, case.weights), memory)
    assert not memory.view(np.uint8).any()


@pytest.mark.parametrize("mode", ["zero", "periodic"])
def test_places_beyond_32_bits_are_for_the_general_kernel(compiled, mode):
    case = Case.random(3, (8, 8), 2, mode)
    memory = np.zeros(4, short_record(2, False))
    table = ImageTable(library.HOST, case.images)
    limit = MOST_SHORT
    for at, fits in ((limit - 1, True), (-limit, True), (limit, False), (-limit - 1, False)):
        case.sources.coords[1] = at
        for choice in (None, compiled):
            with library.computing(choice):
                window = case.patch_size, case.n_scales, mode
                made = record_maker().short(
                    Windows(table, case.sources, *window, case.weights), memory
                )
                assert made == fits
                (found,) = record_maker().full(Windows(table, case.sources, *window, case.weights))
                assert (found["coords"][1, :, 1:] == at).all()
