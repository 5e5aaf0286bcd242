"""Natural order, and inputs with the targets and masks that their names say."""

import random
import re
from pathlib import Path

import numpy as np
import pytest

from gpu_patch import (
    BasicPatchConstr,
    ImageStack,
    IndependentTargetsMsPatchConstr,
    PairedInputTargetMsPatchConstr,
    PatchExtractor,
    SequentialPatching,
    StratifiedPatching,
    open_images,
)
from gpu_patch.cli import main
from gpu_patch.feed import MaskFilter, exclude_background, filter_background, find_background
from gpu_patch.images.names import natural_order

tifffile = pytest.importorskip("tifffile")
PATCH = (16, 16)


@pytest.fixture(autouse=True)
def _on_the_host(monkeypatch, tmp_path):
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")
    monkeypatch.chdir(tmp_path)


def write(folder, names):
    """Write an image per name, all pixels of which are the first number in `names`' value."""
    for name, value in names.items():
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.full((16, 19), value, np.uint8)
        if path.suffix == ".npy":
            np.save(path, pixels)
        else:
            tifffile.imwrite(path, pixels, metadata={"axes": "YX"})


def numbered(pattern, numbers):
    return {pattern.format(i): i for i in numbers}


def basic(noisy, clean):
    return BasicPatchConstr(SequentialPatching(noisy.shapes, PATCH), noisy, clean)


def paired(noisy, clean):
    strategy = SequentialPatching(noisy.shapes, PATCH)
    return PairedInputTargetMsPatchConstr(strategy, noisy, clean, 1, "reflect")


def pairs(constructor):
    """Return the values that stand together in batches, and in single patches."""
    batch = constructor.construct_batch(range(constructor.n_patches))
    found = {(int(a.max()), int(b.max())) for a, b in zip(batch.input, batch.target, strict=True)}
    singles = [constructor.construct_patch(i)[:2] for i in range(constructor.n_patches)]
    assert found == {(int(a.max()), int(b.max())) for a, b in singles}
    return sorted(found)


@pytest.mark.parametrize("make", [basic, paired])
@pytest.mark.parametrize(
    ("noisy", "clean"),
    [
        ("t{}.tif", "t{:02d}.tif"),
        ("t{}.tif", "t{}.npy"),
        ("t{}.TIF", "t{:03d}.ome.tif"),
        ("noisy_t{}.tif", "clean_t{:02d}.tif"),
        ("{}_noisy.tif", "{:04d}.tif"),
        ("2024-05-01_t{}_low.tif", "2024-06-30_t{:02d}_high.tif"),
        ("C0_{}.tif", "C1_{}.tif"),
        ("pos{}/raw.tif", "pos{:02d}/truth.tif"),
        ("pos{}/raw/a.tif", "pos{:02d}/a.tif"),
        ("dose0.{}.tif", "dose0.{}.tif"),
        ("scan.{}.tif", "scan.{:03d}.tif"),
    ],
)
def test_partners_by_name(make, noisy, clean):
    numbers = range(1, 13)
    write("noisy", numbered(noisy, numbers))
    write("clean", numbered(clean, numbers))
    ours, theirs = (open_images(f"{folder}/**/*.*", "YX") for folder in ("noisy", "clean"))
    assert pairs(make(ours, theirs)) == [(i, i) for i in numbers]
    if "/" not in noisy:
        assert pairs(make(open_images("noisy", "YX"), theirs)) == [(i, i) for i in numbers]


@pytest.mark.parametrize("make", [basic, paired])
@pytest.mark.parametrize(
    ("noisy", "clean", "alone"),
    [
        # a file missing on each side
        (numbered("t{}.tif", [1, 2, 3, 4]), numbered("t{}.tif", [1, 2, 3, 5]), "t4 t5"),
        (numbered("t{}.tif", [1, 3, 4]), numbered("t{:02d}.tif", [1, 2, 4]), "t3 t02"),
        (numbered("noisy{}.tif", [1, 2, 4]), numbered("clean{}.tif", [1, 3, 4]), "noisy2 clean3"),
        (numbered("t{}.tif", [10, 11]), numbered("t{}.tif", [20, 21]), "t10 t21"),
        # on one side
        (numbered("t{}.tif", [1, 2, 3]), numbered("t{}.tif", [1, 3]), "t2"),
        (numbered("t{}.tif", [3]), numbered("t{}.tif", [1, 2, 3]), "t1 t2"),
        # nothing in common
        ({"cell.tif": 1, "tissue.tif": 2}, {"x.tif": 1, "y.tif": 2}, "cell tissue x y"),
        # folders count where they differ
        (numbered("pos{}/t1.tif", [1, 2]), numbered("pos{}/t1.tif", [1, 3]), "pos2/t1 pos3/t1"),
        # decimals are no whole numbers
        ({"d0.1.tif": 1, "d0.5.tif": 2}, {"d0.01.tif": 1, "d0.5.tif": 2}, "d0.1 d0.01"),
        # what only one of two spellings can mean
        ({"t1.tif": 1, "t01.tif": 2}, {"t1.tif": 1, "t001.tif": 2}, "t1 t01 t001"),
    ],
)
def test_no_partner_is_an_error_that_lists_both_sides(make, noisy, clean, alone):
    write("noisy", noisy)
    write("clean", clean)
    found, others = open_images("noisy/**/*.tif"), open_images("clean/**/*.tif")
    with pytest.raises(ValueError, match="by the names of their files") as caught:
        make(found, others)
    message = str(caught.value)
    for folder, names in (("noisy", noisy), ("clean", clean)):
        assert all(f"'{Path(folder, name)}'" in message for name in names)
    assert f"input_extractor has {len(noisy)}" in message
    assert f"target_extractor has {len(clean)}" in message
    for name in alone.split():
        assert f"{name}.tif'" in message


def test_message_names_who_is_alone():
    write("noisy", numbered("t{}.tif", range(1, 31)))
    write("clean", numbered("t{}.tif", [*range(1, 30), 31]))
    with pytest.raises(ValueError, match="no partner") as caught:
        basic(open_images("noisy"), open_images("clean"))
    message = str(caught.value)
    assert re.search(r"no partner for 'noisy/t30\.tif' of input_extractor, "
                     r"'clean/t31\.tif' of target_extractor\.", message)  # fmt: skip
    assert "and 18 more" in message


def test_same_names_in_another_order_say_how():
    # natural order depends on what follows the names
    write("noisy", {"xn.tif": 1, "xon.tif": 2})
    write("clean", {"xq.tif": 1, "xoq.tif": 2})
    noisy, clean = open_images("noisy"), open_images("clean")
    with pytest.raises(ValueError, match=r"in another order.*lists of paths"):
        basic(noisy, clean)
    noisy = open_images(["noisy/xn.tif", "noisy/xon.tif"])
    clean = open_images(["clean/xq.tif", "clean/xoq.tif"])
    assert pairs(basic(noisy, clean)) == [(1, 1), (2, 2)]


@pytest.mark.parametrize("make", [basic, paired])
def test_lists_and_arrays_keep_their_order(make):
    write("a", numbered("t{}.tif", [1, 2, 3]))
    write("b", numbered("t{}.tif", [1, 2, 3]))
    backwards = open_images([f"b/t{i}.tif" for i in (3, 1, 2)])
    forwards = open_images([Path("a", f"t{i}.tif") for i in (1, 2, 3)])
    assert pairs(make(forwards, backwards)) == [(1, 3), (2, 1), (3, 2)]
    nested = open_images([["b/t3.tif", "b/t1.tif"], "b/t2.tif"])
    assert pairs(make(forwards, nested)) == [(1, 3), (2, 1), (3, 2)]
    by_hand = PatchExtractor(open_images("b").image_stacks[::-1])
    assert pairs(make(forwards, by_hand)) == [(1, 3), (2, 2), (3, 1)]
    from_files = PatchExtractor([ImageStack.from_tiff(f"b/t{i}.tif") for i in (2, 1, 3)])
    assert pairs(make(forwards, from_files)) == [(1, 2), (2, 1), (3, 3)]
    arrays = open_images([np.full((16, 19), i, np.uint8) for i in (7, 8, 9)], "YX")
    assert pairs(make(arrays, backwards)) == [(7, 3), (8, 1), (9, 2)]
    assert pairs(make(open_images("a"), arrays)) == [(1, 7), (2, 8), (3, 9)]


def test_a_list_beside_a_folder():
    write("a", numbered("t{}.tif", [1, 2, 10]))
    write("b", numbered("t{:02d}.tif", [1, 2, 10]))
    write("other", {"p.tif": 1, "q.tif": 2, "r.tif": 10})
    folder = open_images("b")
    assert pairs(basic(open_images([f"a/t{i}.tif" for i in (1, 2, 10)]), folder)) == [
        (1, 1),
        (2, 2),
        (10, 10),
    ]
    # sorted as text they are other pairs
    with pytest.raises(ValueError, match="in another order"):
        basic(open_images([f"a/t{i}.tif" for i in (1, 10, 2)]), folder)
    with pytest.raises(ValueError, match=r"no partner for 'b/t02\.tif'"):
        basic(folder, open_images(["a/t10.tif", "a/t1.tif"]))
    # names that have nothing to do with each other say nothing
    assert pairs(basic(open_images(["other/r.tif", "other/p.tif", "other/q.tif"]), folder)) == [
        (1, 2),
        (2, 10),
        (10, 1),
    ]


def test_folders_of_a_list_are_paired_one_by_one():
    for folder, first in (("control", 0), ("drug", 10), ("ctrl_gt", 0), ("drug_gt", 10)):
        write(folder, {f"t{i}.tif": first + i for i in (1, 2)})
    noisy, clean = open_images(["control", "drug/*.tif"]), open_images(["ctrl_gt", "drug_gt"])
    assert pairs(basic(noisy, clean)) == [(1, 1), (2, 2), (11, 11), (12, 12)]
    write("drug_gt", {"t3.tif": 13})
    with pytest.raises(ValueError, match=r"no partner for 'drug_gt/t3\.tif'"):
        basic(noisy, open_images(["ctrl_gt", "drug_gt"]))
    # one folder for two
    write("all", {f"control/t{i}.tif": i for i in (1, 2)} | {f"drug/t{i}.tif": 10 + i
                                                             for i in (1, 2)})  # fmt: skip
    assert pairs(basic(noisy, open_images("all/*/*.tif"))) == [(1, 1), (2, 2), (11, 11), (12, 12)]


@pytest.mark.parametrize("make", [basic, paired])
def test_single_files_are_partners_whatever_they_are_called(make):
    write("in", {"monday 7.tif": 5})
    write("out", {"result.tif": 6, "elsewhere/x.npy": 7})
    for target in ("out/result.tif", ["out/result.tif"], "out/*.tif", "out/elsewhere"):
        found = make(open_images("in"), open_images(target, "YX"))
        assert pairs(found) == [(5, 7 if target == "out/elsewhere" else 6)]


def write_series(path, values):
    with tifffile.TiffWriter(path) as file:
        for value in values:
            pixels = np.full((16, 19), value, np.uint8)
            file.write(pixels, metadata={"axes": "YX"}, contiguous=False)


def test_images_of_one_file_are_in_its_order():
    Path("a").mkdir()
    Path("b").mkdir()
    write_series("a/one.tif", [1, 2, 3])
    write_series("b/another.tif", [1, 2, 3])
    noisy = open_images("a/one.tif", scene="all")
    assert len(noisy.shapes) == 3
    both = [(1, 1), (2, 2), (3, 3)]
    assert pairs(basic(noisy, open_images("b/another.tif", scene="all"))) == both
    assert pairs(basic(noisy, open_images("b", scene="all"))) == both
    # a folder of as many files, which have names of their own
    write("c", {"x.tif": 1, "y.tif": 2, "z.tif": 3})
    assert pairs(basic(noisy, open_images("c"))) == both
    # files of several images each
    write_series("a/two.tif", [4, 5])
    write_series("b/two.tif", [4, 5])
    with pytest.raises(ValueError, match="no partner for 'a/one"):
        basic(open_images("a", scene="all"), open_images("b", scene="all"))
    Path("b/another.tif").rename("b/one.tif")
    found = basic(open_images("a", scene="all"), open_images("b", scene="all"))
    assert pairs(found) == [(i, i) for i in range(1, 6)]
    write_series("b/one.tif", [1, 2])
    write_series("b/two.tif", [3, 4, 5])
    with pytest.raises(ValueError, match="by the names"):
        basic(open_images("a", scene="all"), open_images("b", scene="all"))


def test_names_are_compared_as_unicode_means_them():
    write("noisy", {"a\u0308 1.tif": 1, "o\u0308 1.tif": 2})
    write("clean", {"\xe4 1.tif": 1, "\xf6 1.tif": 2})
    assert pairs(basic(open_images("noisy"), open_images("clean"))) == [(1, 1), (2, 2)]


def test_shapes_that_differ_are_named():
    write("noisy", numbered("t{}.tif", [1, 2, 3]))
    write("clean", numbered("t{:02d}.tif", [1, 2, 3]))
    tifffile.imwrite("clean/t02.tif", np.zeros((16, 20), np.uint8), metadata={"axes": "YX"})
    with pytest.raises(ValueError, match="same samples") as caught:
        basic(open_images("noisy"), open_images("clean"))
    assert "'noisy/t2.tif' (1) has (1, 1, 16, 19)" in str(caught.value)
    assert "'clean/t02.tif' (1) has (1, 1, 16, 20)" in str(caught.value)
    with pytest.raises(ValueError, match="same samples") as caught:
        basic(open_images(["noisy/t1.tif", "noisy/t3.tif"]), open_images(["clean/t01.tif"]))
    assert "2: 'noisy/t1.tif', 'noisy/t3.tif' and 1: 'clean/t01.tif'" in str(caught.value)


def test_structures_of_mode_ii_are_not_paired():
    write("nuclei", numbered("n{}.tif", [1, 2, 3]))
    write("actin", {"x.tif": 1, "y.tif": 2})
    structures = [open_images("nuclei"), open_images("actin")]
    strategies = [SequentialPatching(images.shapes, PATCH) for images in structures]
    made = IndependentTargetsMsPatchConstr(strategies, structures, 1, "reflect", None)
    assert made.construct_batch(range(made.n_patches)).target.shape[1] == 2


def mask_files(folder, names, marked):
    """Write masks that mark everything in some images, and nothing in others."""
    write(folder, {name: int(i in marked) for i, name in names.items()})


@pytest.mark.parametrize("act", [filter_background, exclude_background, find_background])
def test_masks_belong_to_the_images_of_their_names(act):
    write("images", numbered("t{}.tif", range(1, 12)))
    mask_files("masks", {i: f"t{i:02d}_mask.tif" for i in range(1, 12)}, {2, 10, 11})
    images = open_images("images")
    strategy = StratifiedPatching(images.shapes, PATCH, seed=0)
    report = act(strategy, open_images("masks"), MaskFilter(0.1), progress=False)
    kept = {Path(images.image_stacks[i].source).name for (i, _), cells in report.kept.items()
            if cells.any()}  # fmt: skip
    assert kept == {"t2.tif", "t10.tif", "t11.tif"}


@pytest.mark.parametrize("act", [filter_background, exclude_background, find_background])
def test_masks_without_partner_are_an_error(act):
    write("images", numbered("t{}.tif", [1, 2, 4]))
    mask_files("masks", {i: f"t{i}.tif" for i in (1, 3, 4)}, {1})
    images, masks = open_images("images"), open_images("masks")
    strategy = StratifiedPatching(images.shapes, PATCH, seed=0)
    before = strategy.n_patches
    with pytest.raises(ValueError, match=r"no partner for 'images/t2\.tif' of patching_strategy, "
                                         r"'masks/t3\.tif' of extractor"):  # fmt: skip
        act(strategy, masks, MaskFilter(0.1), progress=False)
    assert strategy.n_patches == before
    # by position, as lists say
    listed = open_images([f"masks/t{i}.tif" for i in (1, 3, 4)])
    by_place = StratifiedPatching([*images.shapes], PATCH, seed=0)
    of_list = StratifiedPatching(open_images([f"images/t{i}.tif" for i in (1, 2, 4)]).shapes,
                                 PATCH, seed=0)  # fmt: skip
    for strategy, masks_given in ((by_place, masks), (of_list, listed)):
        assert act(strategy, masks_given, MaskFilter(0.1), progress=False).n_kept


def test_natural_order():
    wanted = ["a.tif", "a2b1.tif", "a2b10.tif", "a10.tif", "b-1.tif", "b_1.tif",
              "b01.tif", "b1.tif", "b2/1.tif", "b2/10.tif", "b10/0.tif", "bA.tif"]  # fmt: skip
    shuffled = wanted.copy()
    random.Random(3).shuffle(shuffled)
    assert [str(path) for path in natural_order([Path(name) for name in shuffled])] == wanted
    huge = [f"{'9' * 40}.tif", f"1{'0' * 40}.tif"]
    assert [str(path) for path in natural_order([Path(name) for name in huge[::-1]])] == huge


def test_open_images_sorts_naturally_but_not_lists():
    write("many", numbered("t{}.tif", [1, 2, 3, 10, 20]))
    for images in ("many", "many/*.tif", ["many"], ("many/t*",)):
        found = [int(stack.data.max()) for stack in open_images(images).image_stacks]
        assert found == [1, 2, 3, 10, 20]
    listed = open_images(["many/t10.tif", "many/t2.tif"])
    assert [int(stack.data.max()) for stack in listed.image_stacks] == [10, 2]
    by_hand = open_images("many/t1.tif").image_stacks + open_images("many").image_stacks[:1]
    assert PatchExtractor(by_hand).shapes == [(1, 1, 16, 19)] * 2


def preview(*arguments):
    return main(["preview", *arguments, "--patch-size", "8", "--scales", "1", "--samples", "1"])


def test_command_line_pairs_by_name(capsys):
    write("noisy", numbered("t{}.tif", [1, 2, 10]))
    write("clean", numbered("t{:02d}.tif", [1, 2, 10]))
    assert preview("noisy", "--target", "clean") == 0
    assert preview("noisy/*.tif", "--target", "clean/*.tif", "--mode", "basic") == 0
    capsys.readouterr()
    # as a shell sorts them
    expanded = sorted(map(str, Path("noisy").iterdir())), sorted(map(str, Path("clean").iterdir()))
    assert preview(*expanded[0], "--target", *expanded[1]) == 2
    error = capsys.readouterr().err
    assert error.startswith("gpu-patch: error: IMAGE and --target are paired by the names")
    assert "quoted patterns" in error
    for name in (*expanded[0], *expanded[1]):
        assert f"'{name}'" in error
    assert (
        preview("noisy/t2.tif", "noisy/t1.tif", "--target", "clean/t02.tif", "clean/t01.tif") == 0
    )
    Path("clean/t02.tif").rename("clean/t03.tif")
    capsys.readouterr()
    assert preview("noisy", "--target", "clean") == 2
    assert (
        "no partner for 'noisy/t2.tif' of IMAGE, 'clean/t03.tif' of --target"
        in capsys.readouterr().err
    )
    Path("clean/t10.tif").unlink()
    assert preview("noisy", "--target", "clean") == 2
    assert "--target has 2: 'clean/t01.tif', 'clean/t03.tif'" in capsys.readouterr().err
    # others have nothing in common
    write("other", {"p.tif": 1, "q.tif": 2})
    assert preview("noisy/t1.tif", "noisy/t2.tif", "--target", "other/p.tif", "other/q.tif") == 0
