"""Statistics and background filters that several processes share."""

import sys
from collections import Counter
from itertools import chain
from threading import Barrier, Thread, get_ident, local
from types import SimpleNamespace

import numpy as np
import pytest

from gpu_patch import (
    BasicPatchConstr,
    ImageStack,
    MultiChannelTargetMsPatchConstr,
    PatchExtractor,
    SequentialPatching,
    StratifiedPatching,
)
from gpu_patch.chunks import image
from gpu_patch.feed import (
    BatchLoader,
    MaxFilter,
    compute_normalization,
    exclude_background,
    find_background,
    score_maps,
    survey,
)
from gpu_patch.feed.team import Team
from gpu_patch.pages import PageCache


class Group:
    """torch.distributed, for threads in the place of processes."""

    def __init__(self, size):
        self.size, self.own = size, local()
        self._barrier, self._told = Barrier(size, timeout=30), [None] * size

    def is_available(self):
        return True

    is_initialized = is_available

    def get_rank(self):
        return self.own.rank

    def get_world_size(self):
        return self.size

    def all_gather_object(self, found, told):
        self._told[self.own.rank] = told
        self._barrier.wait()
        found[:] = self._told
        self._barrier.wait()


@pytest.fixture
def on_ranks(monkeypatch):
    """Call something on each of some ranks at once; returns what comes of it, errors too."""

    def call(size, work):
        group, found = Group(size), [None] * size
        monkeypatch.setitem(sys.modules, "torch.distributed", group)

        def run(rank):
            group.own.rank = rank
            try:
                found[rank] = work()
            except Exception as error:
                found[rank] = error

        threads = [Thread(target=run, args=(rank,)) for rank in range(size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found

    return call


def images(dtype, n_channels=2):
    pixels = np.random.default_rng(3).gamma(2, 300, (3, n_channels, 150, 170)).astype(dtype)
    return PatchExtractor([ImageStack.from_array(p[None], "SCYX", device="cpu") for p in pixels])


def plain(dtype):
    extractor = images(dtype)
    return BasicPatchConstr(SequentialPatching(extractor.shapes, (16, 16)), extractor, seed=0)


def mixed(dtype):
    extractor = images(dtype)
    strategy = StratifiedPatching(extractor.shapes, (16, 16), seed=0)
    ranges = [(0.2, 0.8)] * 2
    return MultiChannelTargetMsPatchConstr(strategy, extractor, 2, "reflect", ranges, 0.5, seed=0)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("kind", ["mean_std", "min_max", "quantile"])
@pytest.mark.parametrize(
    ("make", "dtype"), [(plain, "uint16"), (plain, "float32"), (mixed, "uint8")]
)
def test_statistics_are_those_of_one_process(on_ranks, make, dtype, kind, size):
    alone = compute_normalization(make(dtype), kind, batch_size=7, progress=False)
    found = on_ranks(
        size,
        lambda: compute_normalization(make(dtype), kind, batch_size=7, share=True, progress=False),
    )
    assert found == [alone] * size  # to the last bit


def test_each_process_reads_its_part(on_ranks, monkeypatch):
    counted, gather = Counter(), survey.gather

    def counting(images, sources, *arguments, **named):
        counted[get_ident()] += len(sources.image_idx)
        return gather(images, sources, *arguments, **named)

    monkeypatch.setattr(survey, "gather", counting)
    constructor = plain("uint16")
    on_ranks(3, lambda: compute_normalization(constructor, batch_size=1, share=True))
    third = constructor.n_patches // 3
    # the first patch is looked at by all of them
    assert sorted(counted.values()) == [third, third + 1, third + 1]


def test_careamics_estimates_are_made_by_each(on_ranks):
    options = {"quantile_method": "careamics", "progress": False}
    alone = compute_normalization(plain("float32"), "quantile", **options)
    found = on_ranks(
        2, lambda: compute_normalization(plain("float32"), "quantile", share=True, **options)
    )
    assert found == [alone] * 2


def test_more_processes_than_patches(on_ranks):
    extractor = images("uint16")
    strategy = SequentialPatching(extractor.shapes[:1], (150, 170))
    constructor = BasicPatchConstr(strategy, PatchExtractor(extractor.image_stacks[:1]), seed=0)
    alone = compute_normalization(constructor, progress=False)
    found = on_ranks(3, lambda: compute_normalization(constructor, share=True, progress=False))
    assert found == [alone] * 3


def test_an_error_of_one_is_an_error_of_all(on_ranks):
    constructor = plain("float32")
    stack = constructor.input_extractor.image_stacks[2]
    stack.data[0, 1, 140, 160] = np.nan
    found = on_ranks(3, lambda: compute_normalization(constructor, share=True, progress=False))
    assert [type(error) for error in found] == [ValueError] * 3
    assert len({str(error) for error in found}) == 1
    assert "found NaN at pixel (140, 160), channel 1" in str(found[0])


def test_background_is_that_of_one_process(on_ranks):
    def cells(work):
        extractor = images("uint16")
        extractor.image_stacks[0].data[:, :, :80] = 0
        strategy = StratifiedPatching(extractor.shapes, (16, 16), seed=0)
        return strategy, work(strategy, extractor, MaxFilter(900), progress=False)

    def shared(work):
        return lambda *arguments, **named: work(*arguments, share=True, **named)

    _, alone = cells(find_background)
    assert 0 < alone.n_kept < alone.n_cells
    for _, report in on_ranks(3, lambda: cells(shared(find_background))):
        for sample, kept in alone.kept.items():
            np.testing.assert_array_equal(report.kept[sample], kept)
    _, maps = cells(score_maps)
    for _, found in on_ranks(2, lambda: cells(shared(score_maps))):
        for mine, theirs in zip(found, maps, strict=True):
            for name, expected in theirs.items():
                np.testing.assert_array_equal(mine[name], expected)
    left, _ = cells(exclude_background)
    found = on_ranks(2, lambda: cells(shared(exclude_background)))
    assert [strategy.n_patches for strategy, _ in found] == [left.n_patches] * 2


def larger_than_memory(share):
    pixels = np.arange(2 * 512 * 640, dtype=np.uint16).reshape(1, 2, 512, 640)
    reader = SimpleNamespace(
        shape=pixels.shape,
        dtype=pixels.dtype,
        chunk_shape=(1, 2, 32, 32),
        read=lambda region, out: np.copyto(out, pixels[region]),
    )
    cache = PageCache(int(share * pixels.nbytes))
    return PatchExtractor([ImageStack.by_chunk(reader, cache=cache)])


def test_ranks_of_other_budgets_have_one_order(on_ranks, monkeypatch):
    monkeypatch.setattr(image, "_LEAST_BYTES", 0)
    shares = iter((0.7, 0.4))

    def epoch(share, rank, world_size):
        extractor = larger_than_memory(share)
        strategy = StratifiedPatching(extractor.shapes, (16, 16), seed=0)
        loader = BatchLoader(
            BasicPatchConstr(strategy, extractor, seed=0),
            8,
            order="sweep",
            rank=rank,
            world_size=world_size,
        )
        places = [sorted(spec["coords"] for spec in batch.specs) for batch in loader]
        return places, loader.state_dict()["sweep"]

    def on_rank():
        return epoch(next(shares), sys.modules["torch.distributed"].get_rank(), 2)

    found = on_ranks(2, on_rank)
    monkeypatch.delitem(sys.modules, "torch.distributed")
    expected = [epoch(0.4, rank, 2) for rank in range(2)]
    assert found == expected
    assert epoch(0.7, 0, 2) != expected[0]


def test_ranks_of_other_pages_are_refused(on_ranks, monkeypatch):
    monkeypatch.setattr(image, "_LEAST_BYTES", 0)
    sides = iter((16, 32))

    def on_rank():
        extractor = larger_than_memory(0.5)
        stack = extractor.image_stacks[0]
        stack.data.chunk_shape = (1, 2, 32, next(sides))
        strategy = StratifiedPatching(extractor.shapes, (16, 16), seed=0)
        made = BasicPatchConstr(strategy, extractor, seed=0)
        rank = sys.modules["torch.distributed"].get_rank()
        next(iter(BatchLoader(made, 8, order="sweep", rank=rank, world_size=2)))

    for error in on_ranks(2, on_rank):
        assert isinstance(error, ValueError)
        assert "the same memory_budget, in bytes" in str(error)


def test_processes_without_a_group(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.distributed", None)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"call torch\.distributed.init_process_group before"):
        Team.of(True)
    assert Team.of(False).size == 1
    monkeypatch.delenv("WORLD_SIZE")
    assert Team.of(True).size == 1
    with pytest.raises(TypeError, match="share must be True or False"):
        Team.of(1)


def test_parts_are_all_of_it():
    for n in (0, 1, 5, 12):
        parts = [list(Team(rank, 5).own(n)) for rank in range(5)]
        assert list(chain(*parts)) == list(range(n))
