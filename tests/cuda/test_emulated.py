"""The kernels and their launch code, run on the CPU, against the operations in NumPy."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import mutants
import numpy as np
import pytest
from cases import DTYPES, MODES, SPECIALISED, Case, assert_same_context, specialised_case
from emulation.runtime import EmulatedRuntime, available
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_patch._cuda import specialised
from gpu_patch.epilogue import Epilogue, turn
from gpu_patch.sources import ChannelSources
from gpu_patch.table import ImageTable

pytestmark = pytest.mark.skipif(not available(), reason="needs a C++ compiler")


@pytest.fixture
def any_patch(monkeypatch):
    """Let the specialised kernel serve small patches too."""
    monkeypatch.setattr(specialised, "LEAST_PATCH", 1)


@st.composite
def cases(draw, modes=MODES):
    n_dims = draw(st.integers(2, 3))
    n_scales = draw(st.integers(1, 5 if n_dims == 2 else 3))
    n_channels = draw(st.integers(1, 4))
    side = st.sampled_from([1, 2, 3, 5, 8, 13, 33] if n_dims == 2 else [1, 2, 3, 6, 9])
    return Case.random(
        draw(st.integers(0, 2**32)),
        draw(st.lists(side, min_size=n_dims, max_size=n_dims)),
        n_scales,
        draw(st.sampled_from(modes)),
        n_samples=draw(st.integers(1, 3)),
        n_channels=n_channels,
        n_places=draw(st.sampled_from([1, n_channels])),
        dtypes=draw(st.lists(st.sampled_from(DTYPES), min_size=1, max_size=4)),
        most=draw(st.sampled_from([1, 3, 30] if n_dims == 2 else [1, 3, 14])),
    )


@given(cases(), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_general_context_equals_numpy(case, order):
    made = case.context(EmulatedRuntime(order), specialise=False)
    assert_same_context(made, case.numpy_context())


@given(cases(), st.sampled_from(("zero", *MODES)), st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_patches_equal_numpy(case, mode, order):
    made = case.patches(EmulatedRuntime(order), mode)
    np.testing.assert_array_equal(made, case.numpy_patches(mode))


@pytest.mark.parametrize("name", SPECIALISED)
def test_specialised_context_equals_numpy(name, any_patch):
    runtime = EmulatedRuntime()
    for seed in range(3):
        case = specialised_case(name, seed)
        made = case.context(runtime)
        assert_same_context(made, case.numpy_context())
    assert {entry for entry, _ in runtime.launched} == {"specialised"}


@pytest.mark.parametrize(
    ("patch", "n_scales", "mode", "n_places"),
    [
        ((64, 64), 4, "reflect", 1),
        ((64, 64), 4, "wrap", 2),
        ((13, 72), 4, "reflect", 1),
        ((9, 130), 5, "periodic", 2),
        ((50, 150), 3, "wrap", 1),
        ((3, 16, 64), 3, "reflect", 1),
        ((2, 9, 130), 3, "periodic", 2),
    ],
)
def test_columns_taken_together_or_repeated(patch, n_scales, mode, n_places):
    """Windows within images, across one border and across two."""
    runtime = EmulatedRuntime(order=1)
    for least, most in ((900, 1200), (60, 500)) if len(patch) == 2 else ((270, 300), (30, 100)):
        case = Case.random(
            5, patch, n_scales, mode, n_samples=4, n_places=n_places, least=least, most=most,
            dtypes=["uint16", "uint16"],
        )  # fmt: skip
        assert_same_context(case.context(runtime), case.numpy_context())
    assert {entry for entry, _ in runtime.launched} == {"specialised"}


@pytest.mark.parametrize(
    ("patch", "least", "tiles"),
    [((37, 16), 1, [(16, 1, 128), (8, 1, 128)]), ((11, 19, 20), 9, [(16, 8, 256), (8, 4, 128)])],
)
def test_many_samples_have_larger_tiles_and_the_same_results(patch, least, tiles):
    n_samples = specialised.MANY_SAMPLES[len(patch)]
    options = {"least": least, "most": 40, "n_samples": n_samples}
    case = Case.random(3, patch, 3, "reflect", **options)
    runtime = EmulatedRuntime()
    made = case.context(runtime)
    assert_same_context(made, case.numpy_context())
    few = replace(case, sources=case.sources._replace(
        **{name: getattr(case.sources, name)[:9] for name in ("image_idx", "sample_idx", "coords")}
    ), weights=case.weights[:9])  # fmt: skip
    other = EmulatedRuntime()  # this one would take the kernel that it has
    for all_of_them, some in zip(made, few.context(other), strict=True):
        np.testing.assert_array_equal(all_of_them[:9].view(np.int32), some.view(np.int32))
    names = ("TILE_ROWS", "TILE_Z", "N_THREADS")
    launched = [*runtime.launched, *other.launched]
    found = [tuple(constants[name] for name in names) for _, constants in launched]
    assert found == tiles


@pytest.mark.parametrize("name", ["common", "3D, one place per channel"])
def test_both_paths_agree(name, any_patch):
    case = specialised_case(name, 5)
    special = case.context(EmulatedRuntime())
    general = case.context(EmulatedRuntime(), specialise=False)
    assert_same_context(special, general)


@pytest.mark.parametrize("specialise", [False, True])
@pytest.mark.parametrize("name", ["common", "3D, one place per channel"])
def test_order_of_threads_does_not_matter(name, specialise, any_patch):
    case = specialised_case(name, 1)
    first, *others = (
        case.context(EmulatedRuntime(order), specialise=specialise) for order in range(4)
    )
    for other in others:
        np.testing.assert_array_equal(first[0].view(np.int32), other[0].view(np.int32))
        np.testing.assert_array_equal(first[1].view(np.int32), other[1].view(np.int32))


@pytest.mark.parametrize(
    ("options", "patch", "n_scales"),
    [
        ({"dtypes": ["uint8", "uint16"]}, (16, 16), 3),
        ({"n_channels": 7}, (16, 16), 3),
        ({"n_channels": 5, "n_places": 5}, (16, 16), 2),
        ({}, (16, 16), 6),
        ({}, (16, 7), 3),
        ({"most": 20}, (2, 8, 8), 5),
        ({"n_samples": 1}, (300, 10), 2),
    ],
)
def test_general_path_serves_what_the_other_does_not(options, patch, n_scales):
    case = Case.random(0, patch, n_scales, "reflect", **options)
    runtime = EmulatedRuntime()
    assert_same_context(case.context(runtime), case.numpy_context())
    assert runtime.launched[0][0] == "lateral_context"


def test_eight_scales():
    case = Case.random(3, (2, 3), 8, "reflect", most=300)
    runtime = EmulatedRuntime()
    assert_same_context(case.context(runtime), case.numpy_context())
    assert runtime.launched[0][0] == "lateral_context"


def test_taps_beyond_a_chunk_along_z():
    case = Case.random(4, (1, 2, 1), 6, "periodic", n_samples=1, most=20)
    assert_same_context(case.context(EmulatedRuntime()), case.numpy_context())


@pytest.mark.parametrize("specialise", [False, True])
def test_half_precision_output(specialise):
    for dtype in ("uint16", "float32"):  # beyond what float16 holds, and within
        case = specialised_case("common").with_dtype(dtype)
        if dtype == "float32":
            case.images[0] /= 1000
            case.images[1] /= 1000
        with np.errstate(over="ignore"):
            made = case.context(EmulatedRuntime(), dtype=np.float16, specialise=specialise)
            expected = case.numpy_context()
            assert_same_context(made, expected)
            patches = case.patches(EmulatedRuntime(), "zero", dtype=np.float16)
            wanted = case.numpy_patches("zero").astype(np.float16)
        np.testing.assert_array_equal(patches, wanted)


def test_half_precision_input_of_all_values():
    image = np.arange(1 << 16, dtype=np.uint16).view(np.float16).reshape(1, 1, 256, 256)
    sources = ChannelSources(*(np.zeros(s, np.int64) for s in ((1, 1), (1, 1), (1, 1, 2), (1,))))
    case = Case([image], sources, np.ones((1, 1), np.float32), (256, 256), 1, "reflect")
    np.testing.assert_array_equal(case.patches(EmulatedRuntime(), "zero"), image.astype("f4"))
    back = case.patches(EmulatedRuntime(), "zero", dtype=np.float16)
    np.testing.assert_array_equal(back, image)


@pytest.mark.parametrize("specialise", [False, True])
@pytest.mark.parametrize("name", ["single channel", "3D, four scales"])
def test_infinity_and_nan_stay_within_the_taps_reach(name, specialise, any_patch):
    case = specialised_case(name, 2, least=18)
    rng = np.random.default_rng(0)
    for image in case.images:
        bad = rng.choice(image.size, 4, replace=False)
        image.reshape(-1)[bad] = [np.nan, np.inf, -np.inf, np.inf]
    with np.errstate(invalid="ignore"):
        expected = case.numpy_context()
    assert not np.isfinite(expected[0]).all()
    assert np.isfinite(expected[0][:, 1:]).any()
    assert_same_context(case.context(EmulatedRuntime(), specialise=specialise), expected)


def test_zero_mode_far_outside_is_zero():
    case = Case.random(0, (4, 5), 1, "reflect")
    far = case.sources._replace(coords=np.full_like(case.sources.coords, 2**40))
    case = Case(case.images, far, case.weights, (4, 5), 1, "reflect")
    assert (case.patches(EmulatedRuntime(), "zero") == 0).all()


def test_windows_many_images_away():
    case = Case.random(7, (33, 40), 4, "periodic", most=3)
    far = case.sources._replace(coords=case.sources.coords - 12_345_678)
    case = Case(case.images, far, case.weights, (33, 40), 4, "periodic")
    for specialise in (False, True):
        made = case.context(EmulatedRuntime(), specialise=specialise)
        assert_same_context(made, case.numpy_context())


def huge_case(path, shape, sources: ChannelSources) -> Case:
    """An image of which only the pixels that are read exist: a hole in a file takes no room."""
    image = np.memmap(path, np.uint8, "w+", shape=shape)
    height, width = shape[2:]
    corner = np.random.default_rng(0).integers(0, 255, (200, 200), dtype=np.uint8)
    image[-1, -1, height - 200 :, width - 200 :] = corner
    image[-1, 0, height - 200 :, width - 200 :] = corner[::-1]
    return Case([image], sources, np.ones((1, 2), np.float32), (16, 16), 3, "reflect")


def corner_rows(sample: int, side: int) -> ChannelSources:
    one = np.zeros((1, 1), np.int64)
    return ChannelSources(one, one + sample, np.full((1, 1, 2), side - 20), np.array([1, 0]))


def test_channels_beyond_32_bits(tmp_path):
    case = huge_case(tmp_path / "image", (1, 2, 50_000, 50_000), corner_rows(0, 50_000))
    runtime = EmulatedRuntime()
    assert_same_context(case.context(runtime), case.numpy_context())
    assert runtime.launched[0][0] == "lateral_context"
    np.testing.assert_array_equal(case.patches(runtime, "zero"), case.numpy_patches("zero"))


def test_samples_beyond_32_bits(tmp_path):
    case = huge_case(tmp_path / "image", (30, 2, 9_000, 9_000), corner_rows(29, 9_000))
    runtime = EmulatedRuntime()
    assert_same_context(case.context(runtime), case.numpy_context())
    assert runtime.launched[0][0] == "specialised"


@pytest.mark.parametrize("specialise", [False, True])
def test_targets_are_left_out_where_not_wanted(specialise):
    case = specialised_case("common")
    mixed, target = case.context(EmulatedRuntime(), specialise=specialise, targets=False)
    assert target is None
    expected = case.context(EmulatedRuntime(), specialise=specialise)[0]
    np.testing.assert_array_equal(mixed, expected)


def test_one_table_for_many_calls():
    case = specialised_case("common")
    runtime = EmulatedRuntime()
    table = ImageTable(runtime, case.images)
    for _ in range(2):
        made = case.context(runtime, images=table)
        assert_same_context(made, case.numpy_context())
    patches = case.patches(runtime, "zero", images=table)
    np.testing.assert_array_equal(patches, case.numpy_patches("zero"))


@pytest.mark.parametrize(
    ("column", "value"), [("image_idx", 2), ("sample_idx", 2), ("sample_idx", -1), ("channels", 3)]
)
def test_places_that_do_not_exist_are_refused(column, value):
    case = specialised_case("common")
    wrong = getattr(case.sources, column).copy()
    wrong.reshape(-1)[-1] = value
    case = Case(case.images, case.sources._replace(**{column: wrong}), *_rest(case))
    for make in (case.context, lambda runtime: case.patches(runtime, "zero")):
        with pytest.raises(IndexError, match=rf"sources\.{column} holds {value}"):
            make(EmulatedRuntime())


@pytest.mark.parametrize("mode", ["wrap", "reflect"])
def test_nothing_to_fill_windows_with_is_refused(mode):
    case = Case.random(0, (4, 5), 2, mode)
    away = case.sources._replace(coords=case.sources.coords + 1000)
    case = Case(case.images, away, *_rest(case))
    with pytest.raises(ValueError, match="miss the image"):
        case.context(EmulatedRuntime())
    with pytest.raises(ValueError, match="miss the image"):
        case.patches(EmulatedRuntime(), mode)


@pytest.mark.parametrize(
    ("image", "error"),
    [
        (np.zeros((1, 3, 9, 9), np.float64), TypeError),
        (np.zeros((1, 3, 9, 9), ">u2"), TypeError),
        (np.zeros((1, 3, 9, 18), np.uint8)[..., ::2], ValueError),
        (np.zeros((1, 3, 9, 9, 9), np.uint8), ValueError),
    ],
)
def test_images_that_kernels_cannot_read_are_refused(image, error):
    case = Case.random(0, (4, 5), 2, "reflect")
    with pytest.raises(error, match="images"):
        case.context(EmulatedRuntime(), images=[case.images[0], image])


def test_mutants_fit_the_kernels():
    """mutants.py itself takes a minute; that its edits still apply is seen here."""
    folder = Path(specialised.__file__).parent
    found = mutants.load()
    assert len(found) > 60
    for mutant in found:
        assert (folder / mutant.file).read_text().count(mutant.before) == 1, mutant


@pytest.mark.parametrize("mode", ["wrap", "reflect"])
@pytest.mark.parametrize("specialise", [False, True])
def test_images_larger_than_the_cut_that_borders_fold_into(specialise, mode):
    case = Case.random(8, (8, 9), 2, mode, n_samples=40, least=40, most=60)
    assert (case.sources.coords < -4).any(), "some patch's centre must be outside"
    made = case.context(EmulatedRuntime(), specialise=specialise)
    assert_same_context(made, case.numpy_context())
    np.testing.assert_array_equal(case.patches(EmulatedRuntime(), mode), made[1])


def test_blocks_of_the_largest_scale_come_first():
    """Of a group's samples, so that what ends a launch is short."""
    case = Case.random(9, (16, 16), 3, "reflect", n_samples=34)
    runtime, grids = EmulatedRuntime(), []
    original = runtime.kernel

    def kernel(*what):
        run = original(*what)

        def largest_alone(grid, block, arguments, *, shared_mem):
            grids.append(grid)
            run((grid[0], 2, 1), block, arguments, shared_mem=shared_mem)  # of 8 rows each

        return largest_alone

    runtime.kernel = kernel
    made, _ = case.context(runtime)
    assert grids == [(17, 4, 2)]
    scales = made.reshape(34, 3, 16, 16)
    expected = case.numpy_context()[0].reshape(scales.shape)
    np.testing.assert_allclose(scales[:17, 2], expected[:17, 2], rtol=1e-5)
    assert np.isnan(scales[:17, :2]).all(), "smaller scales come later"
    assert np.isnan(scales[17:]).all(), "so does the other group"


@pytest.mark.parametrize(
    ("n_samples", "together"),
    [
        *((0, 0), (1, 1), (7, 7), (32, 32), (33, 11), (34, 17), (62, 31), (64, 32), (100, 25)),
        *((37, 37), (61, 61), (67, 1), (74, 2), (262, 2)),  # no divisor between
    ],
)
def test_groups_of_samples(n_samples, together):
    grid = specialised.grid_of(n_samples, 15)
    assert grid[:2] == (together, 15)
    assert grid[0] * grid[2] == n_samples


def test_grids_are_within_the_limits():
    assert specialised.grid_of(32 * 65535, 6) == (32, 6, 65535)
    assert specialised.grid_of(32 * 65536, 6) == (32 * 65536, 6, 1)
    most = (3, (256, 256, 256), specialised.MOST_SCALES_3D, 6, 4, 3, 0, 0)
    for many, paged in itertools.product([False, True], repeat=2):
        assert specialised.tiled(*most, many, paged).blocks_per_sample <= specialised.MOST_GROUPS


def test_unknown_modes_are_refused():
    case = replace(Case.random(8, (8, 9), 2, "reflect"), mode="zero")
    with pytest.raises(ValueError, match="mode must be one of 'reflect'"):
        case.context(EmulatedRuntime())
    with pytest.raises(ValueError, match="mode must be one of 'zero'"):
        case.patches(EmulatedRuntime(), "symmetric")


def test_divergent_barriers_are_reported():
    def leave_early(text):
        return text.replace(
            "__syncthreads();  // the plane is mixed",
            "if (threadIdx.x > 9) return 0.0f; __syncthreads();",
        )

    case = Case.random(0, (4, 5), 2, "reflect")
    with pytest.raises(RuntimeError, match="divergent"):
        case.context(EmulatedRuntime(edit=leave_early), specialise=False)
    assert_same_context(case.context(EmulatedRuntime(), specialise=False), case.numpy_context())


def _rest(case: Case):
    return case.weights, case.patch_size, case.n_scales, case.mode


# ---- epilogues ---------------------------------------------------------------------------------


@given(cases(), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_general_context_is_finished_as_numpy_does(case, seed):
    epilogue = case.epilogue(seed, mixed=True)
    made = case.context(EmulatedRuntime(seed), specialise=False, epilogue=epilogue)
    assert_same_context(made, case.numpy_context(epilogue=epilogue))


@given(cases(), st.sampled_from(("zero", *MODES)), st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_patches_are_finished_as_numpy_does(case, mode, seed):
    epilogue = case.epilogue(seed, mixed=False)
    made = case.patches(EmulatedRuntime(seed), mode, epilogue=epilogue)
    np.testing.assert_array_equal(made, case.numpy_patches(mode, epilogue=epilogue))


@pytest.mark.parametrize("name", SPECIALISED)
def test_specialised_context_is_finished_as_numpy_does(name, any_patch):
    runtime = EmulatedRuntime()
    case = specialised_case(name, 4, n_samples=8)
    epilogue = case.epilogue(mixed=True)
    made = case.context(runtime, epilogue=epilogue)
    assert_same_context(made, case.numpy_context(epilogue=epilogue))
    assert {entry for entry, _ in runtime.launched} == {"specialised"}


@pytest.mark.parametrize("specialise", [False, True])
@pytest.mark.parametrize("patch", [(16, 16), (3, 9, 9)])
@pytest.mark.parametrize("orientation", range(8))
def test_every_turn_moves_the_values_and_nothing_else(orientation, patch, specialise, any_patch):
    case = Case.random(orientation, patch, 2, "reflect", n_samples=2, most=40)
    identity = Epilogue.identity(2, 1, 2)
    turns = identity.turned(np.full(2, orientation, np.uint8))
    runtime = EmulatedRuntime()
    found = case.context(runtime, specialise=specialise, epilogue=turns)
    plain = case.context(runtime, specialise=specialise)
    for one, other in zip(found, plain, strict=True):
        np.testing.assert_array_equal(one, turn(other, orientation))
    assert runtime.launched[0][0] == ("specialised" if specialise else "lateral_context")


@pytest.mark.parametrize("specialise", [False, True])
def test_values_are_finished_before_they_are_rounded_to_half_precision(specialise):
    case = specialised_case("common", n_samples=8)
    epilogue = replace(
        case.epilogue(mixed=True),
        input_scale=np.full((8, 1), 1e-4, np.float32),
        input_offset=np.full((8, 1), -3, np.float32),
    )
    made = case.context(
        EmulatedRuntime(), dtype=np.float16, specialise=specialise, epilogue=epilogue
    )
    assert np.isfinite(made[0]).all()
    assert_same_context(made, case.numpy_context(epilogue=epilogue))


@pytest.mark.parametrize("specialise", [False, True])
def test_targets_are_left_out_with_an_epilogue_too(specialise):
    case = specialised_case("common")
    epilogue = case.epilogue(mixed=True)
    runtime = EmulatedRuntime()
    options = {"specialise": specialise, "epilogue": epilogue}
    mixed, target = case.context(runtime, targets=False, **options)
    assert target is None
    np.testing.assert_array_equal(mixed, case.context(runtime, **options)[0])


@pytest.mark.parametrize("specialise", [False, True])
def test_kernels_without_an_epilogue_have_nothing_of_it(specialise):
    """Not even the constant: what a batch without one runs is compiled from the same text."""
    case = specialised_case("common")
    seen = []
    runtime = EmulatedRuntime()
    kernel = runtime.kernel

    def spy(name, entry, constants):
        seen.append(constants)
        return kernel(name, entry, constants)

    runtime.kernel = spy
    for epilogue in (None, case.epilogue(mixed=True)):
        case.context(runtime, specialise=specialise, epilogue=epilogue)
    assert ["EPILOGUE" in constants for constants in seen] == [False, True]
