"""Whoever writes a strategy or a constructor: what is asked, and that it works everywhere."""

import numpy as np
import pytest
from builders import CONSTRUCTORS
from worlds import (
    PATCH,
    GivenPatching,
    constructor,
    patches,
    run,
    state,
    with_strategy,
    world,
)

from gpu_patch import PatchConstr, Patching, RandomPatching

PATCHING = ["n_patches", "get_patch_spec", "get_patch_indices"]
PATCH_CONSTR = [
    *("n_patches", "input_shapes", "target_shapes", "construct_patch", "construct_batch"),
    *("get_patch_indices", "get_principal_input"),
    *("get_input_image_metadata", "get_target_image_metadata"),
]


@pytest.mark.parametrize(
    ("protocol", "members"), [(Patching, PATCHING), (PatchConstr, PATCH_CONSTR)]
)
def test_a_forgotten_member_fails_at_construction(protocol, members):
    complete = {name: lambda self, *args: None for name in members}
    type("Complete", (protocol,), complete)()
    for name in members:
        rest = {key: value for key, value in complete.items() if key != name}
        with pytest.raises(TypeError, match=name):
            type("Forgetful", (protocol,), rest)()
    with pytest.raises(TypeError):
        protocol()


class Duck:
    """Has the members of `Patching` and nothing else; places are those of another strategy."""

    def __init__(self, inner):
        self._inner = inner

    @property
    def n_patches(self):
        return self._inner.n_patches

    def get_patch_spec(self, index):
        spec = self._inner.get_patch_spec(index)
        # as upstream and users may give them: NumPy's numbers, arrays and lists
        coords, size = np.array(spec["coords"]), list(spec["patch_size"])
        return {
            **spec,
            "data_idx": np.int64(spec["data_idx"]),
            "coords": coords,
            "patch_size": size,
        }

    def get_patch_indices(self, data_idx):
        return self._inner.get_patch_indices(data_idx)


def shapes_for(w, name):
    return w.actin.shapes if name == "independent" else w.one.shapes


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_a_strategy_that_only_looks_like_one_gives_the_same_patches(name):
    w = world()
    ours = RandomPatching(shapes_for(w, name), PATCH, 5)
    theirs = Duck(RandomPatching(shapes_for(w, name), PATCH, 5))
    expected = patches(with_strategy(world(), name, ours), (0, 7, -1))
    made = with_strategy(world(), name, theirs)
    assert patches(made, (0, 7, -1)) == expected
    batch = made.construct_batch([3, 1, -1])
    own = [value for value in batch.specs[0].values() if not isinstance(value, list)]
    assert all(type(value) in (int, tuple) for value in own)
    assert len(batch.input) == 3


@pytest.mark.parametrize("name", ["basic", "paired", "pred"])
def test_a_strategy_that_only_looks_like_one_is_asked_index_by_index(name):
    ours = RandomPatching(world().one.shapes, PATCH, 5)
    theirs = Duck(RandomPatching(world().one.shapes, PATCH, 5))
    batch = with_strategy(world(), name, theirs).construct_batch([4, 0, -1, 4])
    n = ours.n_patches
    assert list(batch.specs) == [ours.get_patch_spec(i) for i in (4, 0, n - 1, 4)]


class CornerPatching(RandomPatching):
    """Somebody's variant of ours: overrides where patches lie, and how many there are."""

    def get_patch_spec(self, index):
        return {**super().get_patch_spec(index), "coords": (1, 2)}


class FewerPatching(RandomPatching):
    @property
    def n_patches(self):
        return 3


@pytest.mark.parametrize("how", ["patch", "batch"])
@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_a_variant_of_ours_is_followed(name, how):
    w = world()
    made = with_strategy(w, name, CornerPatching(shapes_for(w, name), PATCH, 5))
    result = run(made, how)
    for spec in [result[2]] if how == "patch" else result.specs:
        # the strategy places the second channel of mode II
        place = spec["all_coords"][1] if name == "independent" else spec["coords"]
        assert place == (1, 2)
    few = with_strategy(w, name, FewerPatching(shapes_for(w, name), PATCH, 5))
    if name != "independent":
        assert few.n_patches == 3
        with pytest.raises(IndexError, match="3 patches"):
            few.construct_batch([3])


@pytest.mark.parametrize("patch_size", [4, None])
@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_further_members_of_a_users_strategy_mean_nothing(name, patch_size):
    theirs, untouched = GivenPatching(), GivenPatching()
    theirs.patch_size, theirs.rng = patch_size, "mine"
    expected = patches(with_strategy(world(), name, untouched), [0, 3])
    assert patches(with_strategy(world(), name, theirs), [0, 3]) == expected


def test_batches_do_not_move_our_generators():
    w = world()
    before = [state(thing) for thing in (*w.strategies.values(), *w.constructors.values())]
    for made in w.constructors.values():
        made.construct_batch([0, 1, 2], epoch=4)
    after = [state(thing) for thing in (*w.strategies.values(), *w.constructors.values())]
    assert after == before


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_negative_indices_count_from_the_end(name):
    made, other = (constructor(world(), name) for _ in range(2))
    n = made.n_patches
    assert patches(made, (-1, -n, 2 - n)) == patches(other, (n - 1, 0, 2))
    first = made.construct_batch([-1, -n, 1], epoch=2)
    second = made.construct_batch([n - 1, 0, 1 - n], epoch=2)
    assert np.array_equal(first.input, second.input)
    assert list(first.specs) == list(second.specs)


@pytest.mark.parametrize("name", CONSTRUCTORS)
def test_indices_of_an_image_are_those_whose_principal_place_is_in_it(name):
    made = constructor(world(), name)
    indices = [list(made.get_patch_indices(data_idx)) for data_idx in (0, 1)]
    assert sorted(indices[0] + indices[1]) == list(range(made.n_patches))
    for data_idx in (0, 1):
        assert list(made.get_patch_indices(data_idx - 2)) == indices[data_idx]
        specs = [made.construct_patch(i)[2] for i in indices[data_idx]]
        specs += made.construct_batch(indices[data_idx], epoch=1).specs
        assert {spec["data_idx"] for spec in specs} == {data_idx}
