"""Batches as JAX arrays, by DLPack."""

import numpy as np
import pytest
from builders import KINDS
from samples import make_sample

jax = pytest.importorskip("jax")


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_arrays_are_taken_as_they_are(dtype):
    constructor = make_sample("multichannel").constructor
    arrays, batches = [], []
    for i in range(10):
        batch = constructor.construct_batch([i, i + 1], dtype=dtype)
        batches.append(tuple(part.copy() for part in batch[:2]))
        arrays.append(tuple(jax.dlpack.from_dlpack(part) for part in batch[:2]))
        del batch  # its memory may be lent again once JAX has let go of it, and not before
    for found, expected in zip(arrays, batches, strict=True):
        for array, part in zip(found, expected, strict=True):
            assert array.dtype == dtype
            np.testing.assert_array_equal(np.asarray(array), part)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_copied(kind):
    batch = make_sample(kind).constructor.construct_batch(range(3))
    for part in batch[:2]:
        if part is not None:
            pointer = jax.dlpack.from_dlpack(part).unsafe_buffer_pointer()
            assert pointer == part.ctypes.data


def test_batches_go_through_compiled_functions():
    batch = make_sample("basic").constructor.construct_batch(range(3))
    mean = jax.jit(lambda x: x.mean())(jax.dlpack.from_dlpack(batch.input))
    np.testing.assert_allclose(float(mean), batch.input.mean(), rtol=1e-5)
