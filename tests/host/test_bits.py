"""Bits of the compiled kernels: those of CUDA's, for any threads and instruction sets."""

from __future__ import annotations

import numpy as np
import pytest
from backends import BACKENDS, Host
from cases import DTYPES, SPECIALISED, Case, random_pixels, specialised_case
from emulation.runtime import EmulatedRuntime, available
from paged import host_context

from gpu_patch import ops, threads
from gpu_patch._cuda import specialised
from gpu_patch._host import library
from gpu_patch.sources import ChannelSources

HOSTS = [backend for backend in BACKENDS if isinstance(backend, Host)]


@pytest.fixture(autouse=True)
def default_threads():
    yield
    threads.set_num_threads(None)


def bits(arrays):
    return [array.view(f"u{array.itemsize}") for array in arrays if array is not None]


def assert_same_bits(found, expected):
    for array, other in zip(bits(found), bits(expected), strict=True):
        np.testing.assert_array_equal(array, other)


@pytest.mark.skipif(not available(), reason="needs a C++ compiler")
@pytest.mark.parametrize("finished", [False, True], ids=["plain", "epilogue"])
@pytest.mark.parametrize("name", SPECIALISED)
def test_the_same_as_the_specialised_cuda_kernel(compiled, monkeypatch, name, finished):
    monkeypatch.setattr(specialised, "LEAST_PATCH", 1)
    runtime = EmulatedRuntime()
    for seed in range(3):
        # images smaller than the windows, and larger ones
        case = specialised_case(
            name, seed, most=(60, 25, 500)[seed] if len(SPECIALISED[name][0]) == 2 else 24
        )
        options = {"epilogue": case.epilogue(seed, mixed=True)} if finished else {}
        assert_same_bits(case.host_context(compiled, **options), case.context(runtime, **options))
    assert {entry for entry, _ in runtime.launched} == {"specialised"}


@pytest.mark.parametrize("mixed_types", [False, True])
@pytest.mark.parametrize("name", SPECIALISED)
def test_the_same_by_page(compiled, name, mixed_types):
    patch, n_scales, mode, n_channels, own, dtype = SPECIALISED[name]
    for seed in range(4):
        case = Case.random(
            seed, patch, n_scales, mode, n_channels=n_channels, n_places=n_channels if own else 1,
            dtypes=DTYPES if mixed_types else [dtype], n_samples=3,
            most=(60, 25, 300, 150)[seed] if len(patch) == 2 else 24,
        )  # fmt: skip
        options = {"epilogue": case.epilogue(seed, mixed=True)} if seed % 2 else {}
        threads.set_num_threads(1 + seed)
        assert_same_bits(
            host_context(compiled, case, **options), case.host_context(compiled, **options)
        )


def test_channels_at_one_place_of_images_with_other_pages(compiled):
    images = [random_pixels(np.random.default_rng(i), (1, 1, 210, 190), "uint16") for i in (0, 1)]
    sources = ChannelSources(
        np.array([[0, 1]]),
        np.zeros((1, 2), np.int64),
        np.full((1, 2, 2), 90),
        np.zeros(2, np.int64),
    )
    weights = np.array([[0.3, 0.6]], np.float32)
    case = Case(images, sources, weights, (32, 24), 3, "reflect")
    assert_same_bits(host_context(compiled, case), case.host_context(compiled))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("mixed_types", [False, True])
@pytest.mark.parametrize("name", SPECIALISED)
def test_the_same_for_any_number_of_threads(compiled, name, mixed_types, dtype):
    case = specialised_case(name, 7, n_samples=3)
    if mixed_types:
        patch, n_scales, mode, n_channels, *_ = SPECIALISED[name]
        case = Case.random(
            3, patch, n_scales, mode, n_channels=n_channels, n_places=n_channels, dtypes=DTYPES,
            n_samples=3, most=40 if len(patch) == 2 else 15,
        )  # fmt: skip
    options = {"epilogue": case.epilogue(1, mixed=True), "dtype": dtype}
    threads.set_num_threads(1)
    alone = case.host_context(compiled, **options)
    # so many that samples are cut into parts
    for n in (2, 3, 5, 16):
        threads.set_num_threads(n)
        assert_same_bits(case.host_context(compiled, **options), alone)


def test_large_patches_are_cut_into_parts(compiled):
    for patch, n_scales, most in (((150, 70), 3, 700), ((9, 50, 20), 2, 60)):
        case = Case.random(1, patch, n_scales, "reflect", n_samples=1, least=most // 2, most=most)
        found = []
        for n in (1, 2, 7):
            threads.set_num_threads(n)
            found.append(case.host_context(compiled))
        for other in found[1:]:
            assert_same_bits(other, found[0])


@pytest.mark.parametrize("name", SPECIALISED)
def test_the_same_for_any_instruction_set(name):
    found = [host.library for host in HOSTS if not host.missing()]
    if len(found) < 2:
        pytest.skip(f"this machine has the libraries of {len(found)} instruction sets")
    case = specialised_case(name, 11)
    first, *others = [case.host_context(library) for library in found]
    for other in others:
        assert_same_bits(other, first)


@pytest.mark.parametrize("dtypes", ["uint8", "uint16", "float32", "uint8 uint16 float32"])
@pytest.mark.parametrize("n_channels", [1, 2])
@pytest.mark.parametrize("patch", [(32, 32), (20, 16)], ids=str)
def test_rows_inside_images_are_numpys(compiled, dtypes, n_channels, patch):
    options = {"n_samples": 16, "n_channels": n_channels, "n_places": n_channels}
    case = Case.random(
        n_channels, patch, 1, "wrap", dtypes=dtypes.split(), least=100, most=200, **options
    )
    for kind in (np.float32, np.float16):
        for epilogue in (None, case.epilogue(3, mixed=True)):
            found = case.host_context(compiled, epilogue=epilogue, dtype=kind)
            assert_same_bits(found, case.numpy_context(epilogue=epilogue, dtype=kind))
        for mode in ("zero", "reflect"):
            options = {"mode": mode, "dtype": kind, "epilogue": case.epilogue(4, mixed=False)}
            found = ops.gather(case.images, case.sources, patch, **options)
            with library.computing(None):
                expected = ops.gather(case.images, case.sources, patch, **options)
            assert_same_bits([found], [expected])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("shape", [(3, 2, 5, 7), (2, 1, 150, 257), (1, 1, 1, 1), (0, 2, 4, 4)])
def test_moments_are_numpys(compiled, shape, dtype):
    """Parts, vectors and what is left of them; NaN and infinity stay where they are."""
    samples = np.random.default_rng(0).normal(9, 5, (4, *shape)).astype(dtype)
    samples[1:3].reshape(-1)[::97] = [np.nan, np.inf][shape[0] % 2]
    found = []
    for library_used in (compiled, None):
        moments = np.full((shape[0], 2 * shape[1], *shape[2:]), np.nan, np.float32)
        with library.computing(library_used):
            for number, values in enumerate(samples, 1):
                ops.add_sample(values, moments, number, len(samples))
        found.append(moments)
    np.testing.assert_array_equal(*found)
