"""Whatever a killed run leaves, the next one ends well, and only whole results have their names."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from written import make_predicted, make_store, pixels, units, whole, write_unit

import gpu_patch
from gpu_patch import open_images
from gpu_patch.predict.outputs.disk import Disk
from gpu_patch.predict.outputs.ome_zarr.unfinished import UnfinishedImage
from gpu_patch.predict.outputs.removal import discard, sweep

pytest.importorskip("zarr")
pytest.importorskip("tifffile")

KILLER = Path(__file__).with_name("killer.py")
KILLS = Path(__file__).with_name("kills.py")


@pytest.fixture(autouse=True)
def _on_the_host(monkeypatch):
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
@pytest.mark.parametrize(
    ("ending", "stride", "least"), [(".npy", 1, 8), (".tif", 1, 8), (".ome.zarr", 11, 30)]
)
def test_killed_at_each_step_that_changes_a_folder(tmp_path, ending, stride, least):
    """Of OME-Zarr at some of them, of which there are 400."""
    report, errors = reported(KILLER, tmp_path, ending, stride)
    assert report["wrong"] == [], errors
    assert report["killed"] >= least


@pytest.mark.skipif(sys.platform != "linux", reason="limits of other processes are set")
def test_ended_at_random_moments(tmp_path):
    """`kills.py FOLDER 1000` takes a quarter of an hour."""
    report, errors = reported(KILLS, tmp_path, 8, path=[str(Path(gpu_patch.__file__).parents[1])])
    assert report["wrong"] == [], errors
    assert report["kills"] >= 8


def reported(script, *arguments, path=sys.path):
    """Run a script; return what it reports, and the end of what it says of errors."""
    found = subprocess.run(
        [sys.executable, str(script), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(found.stdout), found.stderr[-3000:]


def begin(folder, predicted, n_units):
    """Write some units, in chunks of 8 × 16, and stop."""
    store = make_store(folder / "a.zarr", ["a"], chunk_size=(8, 16))
    output = store.open(predicted)
    for unit in units(store, predicted)[:n_units]:
        write_unit(output, predicted, unit)
    output.close()
    return UnfinishedImage(store.partial("a"), Disk(durable=False))


def go_on(folder, predicted, **options):
    """Write what is left; return the pixels and how many units that were."""
    store = make_store(folder / "a.zarr", ["a"], chunk_size=(8, 16), **options)
    left = [unit for unit in units(store, predicted) if unit[:2] not in store.done("a")]
    output = store.open(predicted)
    for unit in left:
        write_unit(output, predicted, unit, seed=1)
    return open_images(output.finish()).image_stacks[0].data, len(left)


def lose(*names):
    """A change that removes parts of an unfinished image."""

    def change(work):
        for name in names:
            assert (work.folder / name).exists()
            discard(work.folder / name)

    change.__name__ = " and ".join(names)
    return change


def half_written(work):
    (work.folder / "about.json").write_text('{"fingerprint": "')


def of_something_else(work):
    (work.folder / "about.json").write_text("[1, 2]")


def a_file(work):
    discard(work.folder)
    work.folder.write_text("no folder")


@pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}], ids=str)
@pytest.mark.parametrize(
    "change",
    [lose("about.json"), lose("units"), lose("image"), lose("image/zarr.json"),
     lose("image/0/zarr.json"), lose("image/1/zarr.json"), lose("about.json", "units"),
     lose("image", "units"), half_written, of_something_else, a_file],
    ids=lambda change: change.__name__,
)  # fmt: skip
def test_what_lacks_a_part_is_begun_anew(tmp_path, change, options):
    predicted = make_predicted("YX", X=300)
    change(begin(tmp_path, predicted, 3))
    found, n_left = go_on(tmp_path, predicted, **options)
    assert np.array_equal(found, whole(predicted))
    assert n_left == 5
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zarr"]


@pytest.mark.parametrize("lost", ["0/c/2/0/1/0", "0/c/0/0/0/0"])
def test_units_of_which_a_chunk_is_missing_are_made_again(tmp_path, lost):
    predicted = make_predicted("TCYX", n_channels=2, Y=20, X=40)
    work = begin(tmp_path, predicted, 8)
    (work.image / lost).unlink()
    assert len(work.units()) == 8
    found, n_left = go_on(tmp_path, predicted, resume=True)
    assert np.array_equal(found, whole(predicted))
    assert n_left == 2


def test_sharded_units_are_whole_with_their_shards(tmp_path):
    predicted = make_predicted("ZYX", slab_axis=1)
    options = {"chunk_size": (2, 4, 8), "shard_size": (4, 8, 16)}
    store = make_store(tmp_path / "a.zarr", ["a"], **options)
    output = store.open(predicted)
    for unit in units(store, predicted)[:3]:
        write_unit(output, predicted, unit)
    output.close()
    assert make_store(tmp_path / "a.zarr", ["a"], resume=True, **options).done("a") == {
        unit[:2] for unit in units(store, predicted)[:3]
    }


@pytest.mark.parametrize("options", [{"resume": True}, {"overwrite": True}], ids=str)
def test_files_of_others_are_passed_over(tmp_path, options):
    predicted = make_predicted("YX", X=300)
    work = begin(tmp_path, predicted, 3)
    for folder in (work.folder, work.folder / "units", work.image, work.image / "0"):
        for name in (".DS_Store", "Thumbs.db", "._0-0", "a-b", "1-2.tmp"):
            (folder / name).write_text("no unit")
        (folder / "of someone").mkdir()
    found, n_left = go_on(tmp_path, predicted, **options)
    assert np.array_equal(found, whole(predicted))
    assert n_left == (2 if "resume" in options else 5)


def test_a_folder_that_vanishes_while_a_run_writes(tmp_path):
    """The run says so, and what it leaves stops nobody."""
    predicted = make_predicted("YX", X=300)
    store = make_store(tmp_path / "new" / "a.zarr", ["a"], chunk_size=(8, 16))
    output = store.open(predicted)
    first, second, *_ = units(store, predicted)
    write_unit(output, predicted, first)
    discard(tmp_path / "new")
    with pytest.raises(FileNotFoundError):
        write_unit(output, predicted, second)
    output.close()
    store.abandon()
    found, n_left = go_on(tmp_path / "new", predicted)
    assert np.array_equal(found, whole(predicted))
    assert n_left == 5


@pytest.mark.parametrize("late", [False, True])
def test_a_full_disk_at_the_first_unit(tmp_path, monkeypatch, late):
    """Other chunks may still come when the run has given up."""
    from zarr.storage import LocalStore

    predicted = make_predicted("YX", X=300)
    store = make_store(tmp_path / "a.zarr", ["a"], chunk_size=(8, 16))
    output = store.open(predicted)
    first, *_ = units(store, predicted)

    put, sets = LocalStore.set, []

    async def fail(*arguments, **options):
        sets.append(None)
        if len(sets) == 2:
            await asyncio.sleep(0.01)  # others begin meanwhile
            raise OSError(28, "No space left on device")
        await asyncio.sleep(0.05)  # and come when the other has failed
        await put(*arguments, **options)

    monkeypatch.setattr(LocalStore, "set", fail)
    with pytest.raises(OSError, match="No space left"):
        write_unit(output, predicted, first)
    output.close()
    store.abandon()
    n_begun = len(sets)
    assert n_begun > 2  # zarr-python begins some at once
    time.sleep(0.3)
    assert len(sets) == n_begun
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    if late:
        chunk = store.partial("a") / "image" / "0" / "c" / "0" / "3"
        chunk.parent.mkdir(parents=True)
        chunk.write_bytes(b"late")
    found, n_left = go_on(tmp_path, predicted)
    assert np.array_equal(found, whole(predicted))
    assert n_left == 5
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zarr"]


def test_a_run_whose_units_vanished_has_no_result(tmp_path):
    predicted = make_predicted("YX")
    store = make_store(tmp_path / "a.zarr", ["a"])
    output = store.open(predicted)
    output.write(0, 0, pixels(predicted, 0))
    discard(store.partial("a") / "units")
    with pytest.raises(RuntimeError, match=r"1 of 1 units .* are missing"):
        output.finish()
    assert not (tmp_path / "a.zarr").exists()


def test_what_is_removed_has_its_name_no_more(tmp_path, monkeypatch):
    """Even where it cannot be removed; the next sweep does."""
    folder = tmp_path / ".a.partial"
    (folder / "inner").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *_, **__: None)  # as if killed at once
        discard(folder)
        assert not folder.exists()
        assert len(list(tmp_path.iterdir())) == 1
    (tmp_path / ".a.partial.0123").write_text("half")
    (tmp_path / ".ab.partial.0123").write_text("another's")
    sweep(folder)
    assert [entry.name for entry in tmp_path.iterdir()] == [".ab.partial.0123"]


def test_links_are_removed_and_not_what_they_lead_to(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "data").touch()
    for name, leads_to in (("to a folder", "mine"), ("to nothing", "nowhere")):
        (tmp_path / name).symlink_to(leads_to)
        discard(tmp_path / name)
    discard(tmp_path / "what is not there")
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == [
        "mine",
        "mine/data",
    ]
