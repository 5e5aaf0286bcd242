"""Batches of some rows of an operation's columns, in any order, as an epoch's batches are."""

from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
from backends import BACKENDS, Host
from cases import MODES, Case
from chunk_readers import chunked_images
from pixels import labels

from gpu_patch import ops, threads
from gpu_patch._host import library
from gpu_patch.chunks import image
from gpu_patch.epilogue import Epilogue
from gpu_patch.sources import fixed

ROWS = np.array([5, 0, 3, 3, 8, 2])
HOSTS = [backend for backend in BACKENDS if isinstance(backend, Host)]


@pytest.fixture(autouse=True)
def default_threads():
    yield
    threads.set_num_threads(None)


@pytest.fixture(params=HOSTS, ids=lambda backend: backend.name)
def compiled(request):
    """Each compiled library that there is here."""
    if problem := request.param.missing():
        pytest.skip(problem)
    return request.param.library


def random_case(patch, n_places, seed=0, dtypes=("uint16", "uint8")):
    return Case.random(
        seed, patch, 3, MODES[seed % 3], n_samples=9, n_places=n_places, dtypes=dtypes, most=50
    )


def assert_rows(found, whole, rows=ROWS):
    for own, of_all in zip(found, whole, strict=True):
        assert own.shape == (len(rows), *of_all.shape[1:])
        np.testing.assert_array_equal(own, of_all[rows])


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("n_places", [1, 2])
@pytest.mark.parametrize("patch", [(16, 16), (5, 17), (2, 6, 9)])
def test_rows_are_those_of_all(backend, patch, n_places, dtype):
    for seed, finished in enumerate((False, True, True)):
        case = random_case(patch, n_places, seed)
        how = (case.images, case.sources, case.weights, case.patch_size, case.n_scales)
        options = {"mode": case.mode, "dtype": dtype}
        if finished:
            options["epilogue"] = case.epilogue(seed, mixed=True)
        whole = backend.lateral_context(*how, **options)
        assert_rows(backend.lateral_context(*how, rows=ROWS, **options), whole)
        if finished:
            options["epilogue"] = case.epilogue(seed, mixed=False)
        whole = backend.gather(case.images, case.sources, case.patch_size, **options)
        found = backend.gather(case.images, case.sources, case.patch_size, rows=ROWS, **options)
        assert_rows([found], [whole])


def test_labels_are_those_of_all(backend):
    image_of_labels = labels((2, 3, 30, 40), "int32")
    case = replace(random_case((9, 9), 2, dtypes=["uint8"]), images=[image_of_labels])
    turns = np.arange(9, dtype=np.uint8) % 8
    options = {"dtype": "int32", "epilogue": Epilogue.identity(9, 2, 0).turned(turns)}
    whole = backend.gather(case.images, case.sources, case.patch_size, **options)
    found = backend.gather(case.images, case.sources, case.patch_size, rows=ROWS, **options)
    assert_rows([found], [whole])


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("n_places", [1, 2])
def test_rows_of_images_by_page(n_places, dtype):
    case = random_case((16, 16), n_places, dtypes=["uint8"])
    with mock.patch.object(image, "_LEAST_BYTES", 0):  # pages of few pixels
        images = ops.ImageSet(chunked_images(case.images))
    how = (case.sources, case.weights, case.patch_size, case.n_scales)
    for compiled in (None, *{backend.library for backend in HOSTS if not backend.missing()}):
        with library.computing(compiled):
            if dtype == "float32":
                options = {"mode": case.mode, "epilogue": case.epilogue(mixed=True)}
                whole = ops.LateralContext(case.images, *how, **options)()
                assert_rows(ops.LateralContext(images, *how, **options)(ROWS), whole)
            options = {"dtype": dtype, "epilogue": case.epilogue(mixed=False)}
            whole = ops.Gather(case.images, case.sources, case.patch_size, **options)()
            found = ops.Gather(images, case.sources, case.patch_size, **options)(ROWS)
            assert_rows([found], [whole])


def test_one_operation_serves_batches_of_any_size_threads_and_backend(compiled):
    case = random_case((16, 16), 1)
    made = ops.LateralContext(
        case.images, case.sources, case.weights, case.patch_size, 3, mode="reflect"
    )
    with library.computing(None):
        whole = made()
    calls = []
    call = library.Library.call

    def spy(self, name, job, *arguments):
        calls.append((name, job.n_samples, job.n_planned, job.n_threads))
        return call(self, name, job, *arguments)

    with mock.patch.object(library.Library, "call", spy), library.computing(compiled):
        for rows, n_threads in ((ROWS, 1), (ROWS[:2], 1), (None, 1), (np.tile(ROWS, 40), 2)):
            threads.set_num_threads(n_threads)
            found = made(rows)
            rows = np.arange(9) if rows is None else rows
            for own, of_all in zip(found, whole, strict=True):
                np.testing.assert_allclose(own, of_all[rows], rtol=1e-5)
        threads.set_num_threads(1)
        made(np.tile(ROWS, 40))
    assert calls == [
        ("lateral_context", n_samples, 9, n_threads)
        for n_samples, n_threads in ((6, 1), (2, 1), (9, 1), (240, 2), (240, 1))
    ]


@pytest.mark.parametrize("wrong", [-1, 9, 2**62, -(2**63)])
def test_rows_that_are_not_there(backend, wrong):
    case, rows = random_case((16, 16), 1), np.array([0, wrong])
    with pytest.raises(IndexError, match=rf"rows holds {wrong}, which must be in 0 … 8"):
        backend.gather(case.images, case.sources, case.patch_size, rows=rows)
    with pytest.raises(IndexError, match=rf"rows holds {wrong}, which must be in 0 … 8"):
        backend.lateral_context(
            case.images, case.sources, case.weights, case.patch_size, 2, mode="wrap", rows=rows
        )


def test_places_that_are_not_there_matter_only_where_they_are_read(compiled):
    case = random_case((16, 16), 1)
    image_idx = case.sources.image_idx.copy()
    image_idx[4] = 7
    channels = fixed([0, 1])
    images = ops.ImageSet(case.images)
    images.table.of_channels(channels)  # known to be there, as in most batches
    sources = case.sources._replace(image_idx=image_idx, channels=channels)
    made = ops.Gather(images, sources, case.patch_size)
    with library.computing(compiled):
        assert made(ROWS).shape == (6, 2, 16, 16)
        with pytest.raises(IndexError, match=r"sources.image_idx holds 7, which must be in 0 … 1"):
            made(np.array([0, 4]))
