"""Batches as JAX arrays, by DLPack."""

import numpy as np
import pytest
from builders import KINDS
from pixels import labels
from samples import make_sample

from gpu_patch import BasicPatchConstr, ImageStack, PatchExtractor

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


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "uint32"])
def test_labels_stay_what_they_are(dtype):
    sample = make_sample("basic").constructor
    shapes = sample.input_extractor.shapes
    axes = "SCYX" if len(shapes[0]) == 4 else "SCZYX"
    targets = [labels((s, 1, *size), dtype, i) for i, (s, _, *size) in enumerate(shapes)]
    stacks = [ImageStack.from_array(array, axes, labels=True) for array in targets]
    constructor = BasicPatchConstr(
        sample.patching_strategy, sample.input_extractor, PatchExtractor(stacks), seed=1
    )
    batch = constructor.construct_batch(range(4), target_dtype="native")
    found = jax.dlpack.from_dlpack(batch.target)
    assert found.dtype == dtype
    np.testing.assert_array_equal(np.asarray(found), batch.target)
