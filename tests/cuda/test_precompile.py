"""Kernels that are compiled ahead: which ones, and that they are the ones taken."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from emulation import fake_cupy

from gpu_patch import (
    Augmentation,
    BasicPatchConstr,
    ImageStack,
    MultiChannelTargetMsPatchConstr,
    PairedInputTargetMsPatchConstr,
    PatchExtractor,
    PredMsPatchConstr,
    RandomPatching,
)
from gpu_patch._cuda import compiling, loader, specialised
from gpu_patch._cuda.compiling import rehearsed
from gpu_patch._cuda.loader import OPTIONS, binary_path, source_text
from gpu_patch._cuda.precompile import common_texts, precompile
from gpu_patch._cuda.runtime import CupyRuntime
from gpu_patch.feed import BatchLoader


@pytest.fixture
def cupy(tmp_path, monkeypatch):
    """CuPy whose kernels do nothing, and none compiled ahead."""
    monkeypatch.setattr(loader, "COMPILED", tmp_path / "compiled")
    with fake_cupy.installed() as module:
        yield module


@pytest.fixture
def used(cupy):
    """Texts of the kernels that are asked for."""
    texts = set()

    class RawKernel:
        def __init__(self, text, entry, options):
            texts.add(text)

        def compile(self):
            pass

        def __call__(self, *arguments, **options):
            pass

    cupy.RawKernel = RawKernel
    return texts


def images(dtype, n_channels, *size):
    pixels = np.zeros((1, n_channels, *size), dtype)
    axes = "SCYX" if len(size) == 2 else "SCZYX"
    return PatchExtractor([ImageStack.from_array(pixels, axes, device="cuda")])


def places(extractor, *patch_size):
    return RandomPatching(extractor.shapes, patch_size)


def mixed(extractor, patch_size, n_scales, uncorrelated):
    return MultiChannelTargetMsPatchConstr(
        places(extractor, *patch_size),
        extractor,
        n_scales,
        "reflect",
        [(0.3, 0.7)] * 2,
        uncorrelated,
        seed=0,
    )


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("batch_size", [32, 128])
@pytest.mark.parametrize("uncorrelated", [0.0, 0.1])
def test_what_microsplit_mostly_trains_on_is_compiled_ahead(used, dtype, batch_size, uncorrelated):
    flat, deep = images(dtype, 2, 2048, 2048), images(dtype, 2, 20, 128, 128)
    constructors = [mixed(flat, (64, 64), n, uncorrelated) for n in (2, 3, 4)]
    constructors.append(mixed(deep, (16, 64, 64), 3, uncorrelated))
    for constructor in constructors:
        constructor.construct_batch(np.arange(batch_size) % constructor.n_patches)
        loader = BatchLoader(constructor, 1, augmentation=Augmentation())
        next(iter(loader))
    assert len(used) > len(constructors)
    assert used <= set(common_texts())


@pytest.mark.parametrize("size", [(64, 64), (16, 16, 24)])
def test_no_kernel_is_compiled_within_an_epoch(used, size):
    """Not for the last batch, nor for one that has no uncorrelated sample by chance."""
    batch_size = specialised.MANY_SAMPLES[len(size)]
    constructor = mixed(images(np.uint16, 2, *(5 * n for n in size)), size, 3, 0.5)
    constructor.construct_batch(np.arange(batch_size) % constructor.n_patches)
    assert len(used) == 1
    for first in range(20):
        constructor.construct_batch([first])
    assert len(used) == 1


def test_kernels_of_an_epoch_are_compiled_together_before_any_is_launched(cupy, monkeypatch):
    """That of the input and that of its targets; somebody who looks on sees how far they are."""
    together, looked, events = threading.Barrier(2, timeout=30), threading.Event(), []

    class RawKernel:
        def __init__(self, text, entry, options):
            self.name = entry

        def compile(self):
            together.wait()
            assert looked.wait(30)
            events.append("compiled")

        def __call__(self, *arguments, **options):
            events.append(self.name)

    @contextmanager
    def bar(label, total, unit):
        assert (label, total, unit) == ("compiling CUDA kernels", 2, "kernel")
        done = []
        yield lambda n: (done.append(n), looked.set())
        assert sum(done) == total
        assert done[0] == 0

    cupy.RawKernel = RawKernel
    monkeypatch.setattr(compiling, "progress_bar", bar)
    inputs, targets = images(np.uint16, 1, 100, 100), images(np.uint8, 1, 100, 100)
    constructor = PairedInputTargetMsPatchConstr(
        places(inputs, 16, 16), inputs, targets, 3, "reflect"
    )
    n_batches = len(list(BatchLoader(constructor, 16)))
    assert n_batches > 2
    n_made = n_batches + 2  # with the first ones of the next epoch
    assert events == ["compiled"] * 2 + ["specialised", "gather"] * n_made


def test_what_a_batch_fails_on_is_told_in_its_turn(used):
    """Not by the rehearsal of the first one, and what went before does not matter later."""
    constructor = mixed(images(np.uint16, 2, 64, 64), (16, 16), 3, 0.0)
    asked = []

    def fail(*arguments, **options):
        asked.append(rehearsed() is not None)
        raise MemoryError("no room")

    constructor.construct_batch = fail
    batches = iter(BatchLoader(constructor, 4))
    with pytest.raises(MemoryError, match="no room"):
        next(batches)
    assert asked[:2] == [True, False]


def test_what_serves_any_case_is_compiled_ahead(used):
    single = images(np.uint8, 1, 100, 100)
    BasicPatchConstr(places(single, 9, 9), single).construct_batch(range(4))
    PredMsPatchConstr(places(single, 7, 7), single, 3, "wrap").construct_batch(range(4))
    assert len(used) == 2
    assert used <= set(common_texts())


class Uncompiled(list):
    """A `cupy.RawKernel`, as what it was made of."""

    def __init__(self, text, entry, options):
        super().__init__([text, entry, options])

    def compile(self):
        self.append("compiled")


def test_a_kernel_compiled_ahead_is_taken_where_text_and_device_are_the_same(cupy):
    cupy.RawModule = lambda path: SimpleNamespace(get_function=lambda entry: (path, entry))
    cupy.RawKernel = Uncompiled
    text = source_text("gather", {})
    ahead = binary_path(text, cupy.cuda.runtime.runtimeGetVersion(), "90")
    others = (binary_path(text, 13000, "90"), binary_path(text, 12090, "80"))
    for path in others:
        path.parent.mkdir(parents=True)
        path.touch()
    assert CupyRuntime(0).kernel("gather", "gather", {}) == [text, "gather", OPTIONS, "compiled"]
    ahead.parent.mkdir()
    ahead.touch()
    assert CupyRuntime(0).kernel("gather", "gather", {}) == (str(ahead), "gather")
    other = source_text("gather", {"EPILOGUE": 1})
    assert CupyRuntime(0).kernel("gather", "gather", {"EPILOGUE": 1})[0] == other


def test_another_cuda_s_compiler_is_refused(cupy):
    cupy.cuda.nvrtc = SimpleNamespace(getVersion=lambda: (13, 0))
    with pytest.raises(RuntimeError, match=r"built for CUDA 12, but finds NVRTC 13\.0"):
        precompile(["90"])
