"""Operations and constructors give the same of chunked and of resident images, bit by bit."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from builders import KINDS
from cases import DTYPES, MODES, Case
from chunk_readers import chunked_extractor, chunked_images
from hypothesis import given, settings
from hypothesis import strategies as st
from pixels import distinct
from reference import on_host
from samples import STRATEGIES, make_sample

from gpu_patch import ops, residency
from gpu_patch.feed import compute_normalization
from gpu_patch.sources import ChannelSources


@st.composite
def cases(draw, modes=MODES):
    n_dims = draw(st.integers(2, 3))
    n_channels = draw(st.integers(1, 3))
    side = st.sampled_from([1, 2, 3, 5, 8, 13] if n_dims == 2 else [1, 2, 3, 6])
    return Case.random(
        draw(st.integers(0, 2**32)),
        draw(st.lists(side, min_size=n_dims, max_size=n_dims)),
        draw(st.integers(1, 4 if n_dims == 2 else 3)),
        draw(st.sampled_from(modes)),
        n_samples=draw(st.integers(1, 4)),
        n_channels=n_channels,
        n_places=draw(st.sampled_from([1, n_channels])),
        dtypes=draw(st.lists(st.sampled_from(DTYPES), min_size=1, max_size=4)),
        most=draw(st.sampled_from([1, 3, 40, 90] if n_dims == 2 else [1, 3, 20])),
    )


def assert_same_bits(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            a, b = on_host(a), on_host(b)
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            assert a.tobytes() == b.tobytes()


def both(operation, case, backend, **options):
    """What an operation makes of resident and of chunked images."""
    resident = backend.images(case.images)
    chunked = ops.ImageSet(
        chunked_images(case.images, device=backend.device, seed=case.sources.coords.size)
    )
    return [
        found if isinstance(found, tuple) else (found,)
        for found in (operation(images, **options) for images in (resident, chunked))
    ]


@given(case=cases(), mode=st.sampled_from(("zero", *MODES)))
@settings(max_examples=80)
def test_patches(backend, case, mode):
    def operation(images, **options):
        return ops.gather(
            images, case.sources, case.patch_size, mode=mode, n_scales=case.n_scales, **options
        )

    with backend.running():
        assert_same_bits(*both(operation, case, backend, epilogue=case.epilogue(mixed=False)))
        assert_same_bits(*both(operation, case, backend, dtype=np.float16))


@given(case=cases())
@settings(max_examples=80)
def test_contexts(backend, case):
    def operation(images, **options):
        return ops.lateral_context(
            images, case.sources, case.weights, case.patch_size, case.n_scales, mode=case.mode,
            **options,
        )  # fmt: skip

    with backend.running():
        assert_same_bits(*both(operation, case, backend))
        assert_same_bits(*both(operation, case, backend, targets=False))
        assert_same_bits(*both(operation, case, backend, epilogue=case.epilogue(mixed=True)))


def chunked_sample(monkeypatch, *arguments, budget=10**8, **options):
    """As `make_sample`, but all extractors are chunked."""
    import samples

    def make(images, device="cpu"):
        return chunked_extractor(images, budget, device)

    with monkeypatch.context() as patch:
        patch.setattr(samples, "make_extractor", make)
        return make_sample(*arguments, **options)


@pytest.mark.parametrize("n_dims", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_batches(kind, n_dims, device, monkeypatch):
    for i, strategy in enumerate(STRATEGIES):
        mode = MODES[(i + KINDS.index(kind) + n_dims) % len(MODES)]
        options = {"strategy": strategy, "mode": mode, "n_dims": n_dims, "device": device}
        expected = make_sample(kind, **options).constructor
        found = chunked_sample(monkeypatch, kind, **options).constructor
        if strategy == "whole":
            indices = list(expected.get_patch_indices(0))
        else:
            indices = list(range(0, expected.n_patches, 3))
        a, b = (c.construct_batch(indices, epoch=2) for c in (found, expected))
        assert_same_bits([a.input, a.target], [b.input, b.target])
        assert list(a.specs) == list(b.specs)
        assert_same_bits(found.construct_patch(1)[:2], expected.construct_patch(1)[:2])


def test_extractors(device):
    arrays = [distinct((2, 3, 20, 33), "uint16"), distinct((1, 3, 9, 11), "float16")]
    found = chunked_extractor(arrays, device=device)
    for data_idx, array in enumerate(arrays):
        patch = on_host(found.extract_channel_patch(data_idx, 0, [2, 0], (-2, 3), (8, 20)))
        expected = np.zeros((2, 8, 20), np.float32)
        width = min(20, array.shape[3] - 3)
        expected[:, 2:, :width] = array[0, [2, 0], :6, 3 : 3 + width]
        np.testing.assert_array_equal(patch, expected)


def test_normalization(monkeypatch):
    a = chunked_sample(monkeypatch, "multichannel", "sequential").constructor
    b = make_sample("multichannel", "sequential").constructor
    for kind in ("mean_std", "quantile"):
        assert compute_normalization(a, kind) == compute_normalization(b, kind)


def test_another_process_reads_for_itself(monkeypatch):
    made = chunked_sample(monkeypatch, "basic").constructor
    expected = made.construct_batch([0, 1, 2])
    assert sum(stack.nbytes for stack in made.input_extractor.image_stacks)
    again = pickle.loads(pickle.dumps(made))
    stacks = again.input_extractor.image_stacks
    assert len({id(stack.data.cache) for stack in stacks}) == 1
    assert [stack.nbytes for stack in stacks] == [0] * len(stacks)
    found = again.construct_batch([0, 1, 2])
    assert_same_bits([found.input, found.target], [expected.input, expected.target])


@pytest.mark.parametrize("mode", ["reflect", "wrap"])
def test_places_that_miss_the_image(mode):
    (image,) = chunked_images([distinct((1, 1, 9, 9), "uint8")])
    zero = np.zeros((1, 1), np.int64)
    sources = ChannelSources(zero, zero, np.full((1, 1, 2), 100), np.array([0]))
    with pytest.raises(ValueError, match="miss the image: under"):
        ops.gather([image], sources, (4, 4), mode=mode)
    assert not ops.gather([image], sources, (4, 4), mode="zero").any()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("image_idx", {"image_idx": np.array([[1]])}),
        ("image_idx", {"image_idx": np.array([[-1]])}),
        ("sample_idx", {"sample_idx": np.array([[2]])}),
        ("channels", {"channels": np.array([0, 3])}),
        ("channels", {"channels": np.array([-1])}),
    ],
)
def test_indices_beyond_the_images(name, change):
    (image,) = chunked_images([distinct((2, 3, 9, 9), "uint8")])
    zero = np.zeros((1, 1), np.int64)
    sources = ChannelSources(zero, zero, np.zeros((1, 1, 2), np.int64), np.array([0]))._replace(
        **change
    )
    with pytest.raises(IndexError, match=f"sources.{name} holds"):
        ops.gather([image], sources, (4, 4))
    assert not image.cache.traffic.misses


def test_resident_and_chunked_images_do_not_mix():
    (image,) = chunked_images([distinct((2, 3, 9, 9), "uint8")])
    with pytest.raises(ValueError, match="found 1 of 2 chunked"):
        ops.ImageSet([image, np.zeros((2, 3, 9, 9), np.uint8)])


def test_residency():
    extractor = chunked_extractor(
        [distinct((1, 2, 500, 400), "uint16")], chunk_shape=(1, 1, 99, 99)
    )
    (stack,) = extractor.image_stacks
    assert stack.nbytes == 0
    stack.extract_patch(0, [1], (0, 0), (64, 120))
    assert stack.nbytes == 2 * 2 * 99 * 99 * 2  # a page has both channels
    assert stack in residency().stacks
    assert "78.4 kB of 800.0 kB  1 x 2 x 500 x 400 uint16  array" in str(residency())
