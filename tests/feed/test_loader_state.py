"""The state of a loader goes to loaders of the same order alone."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from pixels import distinct

from gpu_patch import (
    BasicPatchConstr,
    FixedPatching,
    FixedRandomPatching,
    ImageStack,
    IndependentTargetsMsPatchConstr,
    PatchExtractor,
    PredMsPatchConstr,
    RandomPatching,
    SequentialPatching,
    StratifiedPatching,
    TiledPatching,
    WholeSamplePatching,
)
from gpu_patch.feed import BatchLoader

PIXELS = distinct((3, 2, 71, 90), "uint16")


def extractor(pixels=PIXELS):
    return PatchExtractor([ImageStack.from_array(pixels, "SCYX", device="cpu")])


def stratified(size=(16, 16), seed=0, excluded=(), probs=None, pixels=PIXELS):
    images = extractor(pixels)
    strategy = StratifiedPatching(images.shapes, size, seed)
    for cell in excluded:
        strategy.exclude_patches(0, 1, [cell])
    strategy.set_region_probs(0, 2, probs or {})
    return BasicPatchConstr(strategy, images, seed=5)


def loader(constructor=None, batch_size=7, **options):
    made = stratified() if constructor is None else constructor
    return BatchLoader(made, batch_size, **{"order": "blocks", "seed": 3, **options})


def state_after(made, n_batches):
    for _ in itertools.islice(made, n_batches):
        pass
    return json.loads(json.dumps(made.state_dict()))


def others():
    """Loaders of another order, and what the refusal must name."""
    yield loader(order="shuffle"), ["order='blocks'", "order='shuffle'"]
    yield loader(order="by_image"), ["order='by_image'"]
    yield loader(order="shuffle", shuffle=False), ["shuffle=True", "shuffle=False"]
    yield loader(window=1.0), ["window=0.125", "window=1.0"]
    yield loader(stratified(seed=99)), ["patching_strategy", "seed=0", "seed=99"]
    yield loader(stratified(seed=None)), ["seed=None"]
    yield loader(stratified((8, 32))), ["patch_size=[16, 16]", "patch_size=[8, 32]"]
    yield loader(stratified(pixels=PIXELS.transpose(0, 1, 3, 2))), ["other places"]
    images = extractor()
    strategy = RandomPatching(images.shapes, (16, 16), 0)
    made = BasicPatchConstr(strategy, images, seed=5)
    yield loader(made), ["class='StratifiedPatching'", "class='RandomPatching'"]


@pytest.mark.parametrize("case", range(len(list(others()))))
def test_another_order_is_refused_by_name(case):
    other, words = list(others())[case]
    state, before = state_after(loader(), 3), other.state_dict()
    with pytest.raises(ValueError, match="state is of a") as raised:
        other.load_state_dict(state)
    missing = [word for word in [*words, "set_epoch"] if word not in str(raised.value)]
    assert not missing, f"{raised.value!r} does not say {missing}"
    assert other.state_dict() == before


def test_other_cells_are_refused():
    """As many patches, so that their number alone would not tell."""
    some = loader(stratified(excluded=[(1, 1)]))
    for change in ({"excluded": [(2, 3)]}, {"excluded": [(1, 1)], "probs": {(0, 0): 1 - 1e-9}}):
        other = loader(stratified(**change))
        assert other.constructor.n_patches == some.constructor.n_patches
        with pytest.raises(ValueError, match="other places"):
            other.load_state_dict(state_after(some, 1))
    same = loader(stratified(excluded=[(1, 1)]))
    same.load_state_dict(state_after(some, 1))


def test_more_scales_make_other_blocks():
    images = extractor(distinct((1, 1, 300, 310), "uint8"))

    def made(n_scales):
        strategy = StratifiedPatching(images.shapes, (16, 16), 0)
        return loader(PredMsPatchConstr(strategy, images, n_scales, "reflect", seed=1))

    with pytest.raises(ValueError, match=r"state is of images in [0-9]+ blocks, these are in"):
        made(4).load_state_dict(state_after(made(1), 2))
    made(4).load_state_dict(state_after(made(4), 2))


@pytest.mark.parametrize("size", [(5, 6), (9, 4)])
@pytest.mark.parametrize(
    "kind", [FixedRandomPatching, SequentialPatching, TiledPatching, RandomPatching]
)
def test_strategies_are_told_apart_by_what_they_are_given(kind, size):
    def made(*more):
        images = extractor(PIXELS[:2, :1, :40, :50])
        return loader(BasicPatchConstr(kind(images.shapes, size, *more), images, seed=2))

    first, second = (
        ((0,), (1,))
        if kind in (FixedRandomPatching, RandomPatching)
        else (
            ((2, 2),),
            ((0, 2),),
        )
    )
    state = state_after(made(*first), 2)
    again = made(*first)
    again.load_state_dict(state)
    assert again.state_dict() == state
    with pytest.raises(ValueError, match=r"n_patches=|seed=0, .*seed=1|overlaps="):
        made(*second).load_state_dict(state)


def test_lists_and_shapes_of_whole_samples():
    images = extractor(PIXELS[:, :, :40, :40])
    specs = [
        {"data_idx": 0, "sample_idx": s, "coords": (s, 2 * s), "patch_size": (8, 9)}
        for s in range(3)
    ]
    moved = [*specs[:2], {**specs[2], "coords": (4, 5)}]
    constructors = [
        BasicPatchConstr(strategy, images, seed=0)
        for strategy in (
            FixedPatching(specs),
            FixedPatching(moved),
            FixedPatching(specs[::-1]),
            WholeSamplePatching(images.shapes),
        )
    ]
    state = state_after(loader(constructors[0], 1), 1)
    loader(constructors[0], 2).load_state_dict(state)
    for other in constructors[1:]:
        with pytest.raises(ValueError, match=r"other places|class='FixedPatching'"):
            loader(other, 1).load_state_dict(state)


def test_every_structure_counts():
    def made(seed):
        structures = [extractor(PIXELS[:, [c]]) for c in range(2)]
        strategies = [
            RandomPatching(each.shapes, (16, 16), s)
            for each, s in zip(structures, (0, seed), strict=True)
        ]
        return loader(
            IndependentTargetsMsPatchConstr(strategies, structures, 2, "reflect", None, seed=4)
        )

    state = state_after(made(1), 2)
    made(1).load_state_dict(state)
    with pytest.raises(ValueError, match=r"a patching_strategies\[1\] with seed=1"):
        made(2).load_state_dict(state)


@pytest.mark.parametrize("order", ["blocks", "shuffle"])
def test_batch_sizes_ranks_and_the_seed_of_a_loader_may_be_others(order):
    def indices(made):
        return [spec["coords"] for batch in made for spec in batch.specs]

    whole = indices(loader(order=order))
    state = state_after(loader(order=order), 3)
    for options in ({"batch_size": 9}, {"seed": 77}, {"window": 0.125}):
        other = loader(order=order, **options)
        other.load_state_dict(state)
        assert indices(other) == whole[21:]
    ranks = [loader(order=order, batch_size=2, rank=r, world_size=3) for r in range(3)]
    for rank in ranks:
        rank.load_state_dict(state)
    assert sorted(p for rank in ranks for p in indices(rank)) == sorted(whole[21:])


def test_a_window_is_of_no_meaning_elsewhere():
    state = state_after(loader(order="shuffle", window=0.5), 1)
    loader(order="shuffle", window=1.0).load_state_dict(state)


def test_what_is_excluded_during_an_epoch_counts_from_the_next_one_on():
    constructor = stratified()
    made = loader(constructor)
    batches = iter(made)
    next(batches)
    before = made.state_dict()
    constructor.patching_strategy.set_region_probs(0, 0, {(0, 0): 1 - 1e-9})
    next(batches)
    assert made.state_dict()["strategies"] == before["strategies"]
    made.set_epoch(1)
    assert made.state_dict()["strategies"] != before["strategies"]


def test_states_of_the_first_version_are_taken_with_a_warning():
    made = loader()
    state = state_after(made, 2)
    kept = ("seed", "constructor_seed", "epoch", "position", "n_patches")
    old = {"version": 1, **{key: state[key] for key in kept}}
    again = loader()
    with pytest.warns(UserWarning, match="older version") as said:
        again.load_state_dict(old)
    assert said[0].filename == __file__
    assert again.state_dict() == state
    with (
        pytest.raises(ValueError, match="state is of 3 patches"),
        pytest.warns(UserWarning, match="older version"),
    ):
        again.load_state_dict({**old, "n_patches": 3})


class Mine:
    """Somebody's own strategy."""

    def __init__(self, n_patches, patch_size=None):
        self.n_patches, self.patch_size = n_patches, patch_size

    def get_patch_spec(self, index):
        at = (index, 2 * index)
        return {"data_idx": 0, "sample_idx": 0, "coords": at, "patch_size": (8, 8)}

    def get_patch_indices(self, data_idx):
        return list(range(self.n_patches))


def test_strategies_of_ones_own_tell_what_they_can():
    images = extractor()

    def made(*arguments):
        return loader(BasicPatchConstr(Mine(*arguments), images, seed=0), 2, order="shuffle")

    state = state_after(made(9, np.array([8, 8])), 1)
    made(9, (8, 8)).load_state_dict(state)
    for other in ((9, "small"), (9, (8, 9)), (10, (8, 8))):
        with pytest.raises(ValueError, match="state is of a patching_strategy with"):
            made(*other).load_state_dict(state)
