"""Two runs never write the same result; whoever comes second is told who holds it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from pixels import distinct
from written import make_predicted, make_store, pixels, together, units, whole, write_all

from gpu_patch import ImageStack, open_images, predict
from gpu_patch.predict.outputs import Shard, claims
from gpu_patch.predict.outputs.claims import Claim
from gpu_patch.predict.outputs.ranks import Ranks

pytest.importorskip("zarr")
pytest.importorskip("tifffile")

CLAIMER = Path(__file__).with_name("claimer.py")
ARRAY = distinct((150, 40), "uint16").astype(np.float32)
OPTIONS = {"tile_size": (32, 40), "overlaps": (0, 0), "batch_size": 1, "progress": False}


@pytest.fixture(autouse=True)
def _on_the_host(monkeypatch):
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")


class Running:
    """A run in a thread, whose model waits at its third call until `go_on`."""

    def __init__(self, out, **options):
        self.reached, self.may_go_on, self.n_calls = threading.Event(), threading.Event(), 0
        self.error = None
        self.thread = threading.Thread(target=self._predict, args=(out,), kwargs=options)

    def __enter__(self):
        self.thread.start()
        assert self.reached.wait(60)
        return self

    def __exit__(self, *_):
        self.may_go_on.set()
        self.thread.join(60)
        assert not self.thread.is_alive()
        assert self.error is None

    def _predict(self, out, **options):
        try:
            predict(ImageStack.from_array(ARRAY, "YX"), self._model, out=out, **OPTIONS, **options)
        except BaseException as error:
            self.error = error
            self.reached.set()

    def _model(self, x):
        self.n_calls += 1
        if self.n_calls == 3:
            self.reached.set()
            assert self.may_go_on.wait(60)
        return x + 1


def second(out, **options):
    """The same by somebody else, with a model that must not be asked."""

    def model(x):
        raise AssertionError("the model was asked")

    return predict(ImageStack.from_array(ARRAY, "YX"), model, out=out, **OPTIONS, **options)


def read(path):
    return open_images(path, "YX").image_stacks[0].data[0, 0]


@pytest.mark.parametrize("options", [{}, {"overwrite": True}])
@pytest.mark.parametrize("ending", [".npy", ".ome.tif", ".ome.zarr"])
def test_the_second_run_says_who_holds_the_result(ending, options, tmp_path):
    out = tmp_path / f"o{ending}"
    words = rf"o{ending} is being written by another run: .*{os.getpid()} on .*, since 20\d\d-"
    with Running(out, **options):
        for allowed in ({}, {"overwrite": True}):
            with pytest.raises(BlockingIOError, match=words):
                second(out, **allowed)
    np.testing.assert_array_equal(read(out), ARRAY + 1)
    assert list(tmp_path.iterdir()) == [out]
    with Running(out, overwrite=True):  # and once it has ended, others may
        pass


def test_two_runs_do_not_go_on_with_one(tmp_path):
    out = tmp_path / "o.ome.zarr"
    calls = []

    def model(x):
        calls.append(None)
        if len(calls) == 3:
            raise RuntimeError("broken")
        return x + 1

    options = {"chunk_size": (32, 32)}
    with pytest.raises(RuntimeError, match="broken"):
        predict(ImageStack.from_array(ARRAY, "YX"), model, out=out, **OPTIONS, **options)
    with Running(out, resume=True, overwrite=True, **options):
        for allowed in ({}, {"overwrite": True}):
            with pytest.raises(BlockingIOError, match="is being written by another run"):
                second(out, resume=True, **options, **allowed)
    np.testing.assert_array_equal(read(out), ARRAY + 1)


def test_a_folder_takes_other_results_meanwhile(tmp_path):
    """The same name in another format too."""
    image = ImageStack.from_array(ARRAY, "YX")
    with Running(tmp_path / "a.npy"):
        found = predict(image, lambda x: x, out=tmp_path / "a.tif", **OPTIONS)
        np.testing.assert_array_equal(read(found.images[0]), ARRAY)
        with pytest.raises(BlockingIOError, match=r"A\.NPY is being written"):
            second(tmp_path / "A.NPY")  # the same file, where capitals do not count
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "a.tif"]


def test_what_is_finished_or_given_up_is_free(tmp_path):
    predicted = make_predicted("YX")
    first = make_store(tmp_path, ["a", "b"], format="npy")
    write_all(first, predicted)
    with pytest.raises(BlockingIOError, match=r"b\.npy"):  # it may still come
        make_store(tmp_path / "b.npy", ["b"])
    output = first.open(make_predicted("YX", name="b"))
    output.close()
    store = make_store(tmp_path / "b.npy", ["b"])
    begun = store.open(make_predicted("YX", name="b"))
    begun.write(0, 0, pixels(predicted, 0, 0, 10))
    output.close()  # again: nothing of the other run
    begun.write(0, 10, pixels(predicted, 0, 10))
    assert np.array_equal(open_images(begun.finish(), "YX").image_stacks[0].data, whole(predicted))


def test_what_is_refused_holds_nothing(tmp_path):
    write_all(make_store(tmp_path / "a.zarr", ["a"]), make_predicted("YX"))
    for _ in range(2):
        with pytest.raises(FileExistsError, match="overwrite=True replaces it") as kept:
            make_store(tmp_path / "a.zarr", ["a"])
    assert kept.value.__traceback__ is not None  # which keeps the store, as notebooks do
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


def test_a_full_disk_is_said_to_be_full(tmp_path, monkeypatch):
    """It takes a part of what is written to it before."""
    room, write = [20], os.write

    def write_a_part(descriptor, data):
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        n = write(descriptor, data[: room[0]])
        room[0] -= n
        return n

    monkeypatch.setattr(os, "write", write_a_part)
    with pytest.raises(OSError, match="No space left"):
        Claim(tmp_path, ["a.tif"])
    monkeypatch.undo()
    assert not list(tmp_path.iterdir())
    Claim(tmp_path, ["a.tif"]).release()


# ---- processes ---------------------------------------------------------------------------------


def claimer(*arguments):
    return subprocess.Popen(
        [sys.executable, str(CLAIMER), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_claim_ends_with_its_process(tmp_path):
    with claimer("hold", tmp_path) as process:
        assert process.stdout.readline() == "held\n"
        message = rf"a\.tif is being written by another run: process {process.pid} on "
        with pytest.raises(BlockingIOError, match=message) as refused:
            Claim(tmp_path, ["b.tif", "a.tif"])
        assert "remove" not in str(refused.value)  # it is not needed on this host
        process.kill()
        process.wait()
        assert len(list(tmp_path.iterdir())) == 1
        Claim(tmp_path, ["b.tif", "a.tif"]).done("a.tif")
    assert not list(tmp_path.iterdir())


def test_a_process_that_it_forked_does_not_hold_on(tmp_path):
    with claimer("fork", tmp_path) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError):
            Claim(tmp_path, ["a.tif"])
        process.kill()
        process.wait()
        Claim(tmp_path, ["a.tif"]).release()  # while the forked one lives
        process.stdin.close()
    assert not list(tmp_path.iterdir())


def test_of_many_that_begin_at_once_one_goes_on(tmp_path):
    with claimer("race", tmp_path, 30, 5) as process:
        found = json.loads(process.communicate(timeout=120)[0])
    assert found == [1] * 30
    assert not list(tmp_path.iterdir())


def test_those_that_begin_at_once_with_other_results_all_go_on(tmp_path):
    with claimer("apart", tmp_path, 10, 5) as process:
        found = json.loads(process.communicate(timeout=120)[0])
    assert found == [5] * 10


def noted(folder, **changes):
    """The claim of another run as it stands in its file, which nobody locks."""
    claim = Claim(folder, ["a.tif"])
    (path,) = folder.glob(".gpu_patch-*")
    said = json.loads(path.read_text().partition("\n")[0])
    claim.release()
    path.write_text(json.dumps({**said, "locked": False, **changes}) + "\nheld")
    return path


@pytest.mark.parametrize("locks", [True, False])
def test_file_systems_without_locks(tmp_path, monkeypatch, locks):
    if not locks:
        monkeypatch.setattr(claims, "_lock", lambda *_, **__: None)
    path = noted(tmp_path)
    with pytest.raises(
        BlockingIOError, match=rf"certain that it runs no more, remove .*{path.name}"
    ):
        Claim(tmp_path, ["a.tif"])
    path.unlink()
    path = noted(tmp_path, host="elsewhere", process=1)
    with pytest.raises(BlockingIOError, match=r"process 1 on elsewhere, since .*remove"):
        Claim(tmp_path, ["a.tif"])
    path.unlink()
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    path = noted(tmp_path, process=ended.pid)
    Claim(tmp_path, ["a.tif"]).release()
    assert not list(tmp_path.iterdir())


def test_a_claim_that_was_never_written_does_not_stop_anyone(tmp_path):
    """Of a process that was killed between making its file and writing to it."""
    (tmp_path / ".gpu_patch-0.run").touch()
    (tmp_path / ".gpu_patch-1.run").write_text('{"run": "')
    Claim(tmp_path, ["a.tif"]).release()
    assert not list(tmp_path.iterdir())


# ---- ranks -------------------------------------------------------------------------------------


def test_every_rank_of_the_second_run_is_told(tmp_path):
    """And the first one, of as many ranks, is not disturbed."""
    out, predicted = tmp_path / "a.zarr", make_predicted("TYX")

    def begin(rank):
        return make_store(out, ["a"], rank=rank, world_size=2, timeout=30)

    stores = together(begin, 2)
    outputs = [store.open(predicted) for store in stores]
    assert [type(error) for error in together(begin, 2)] == [BlockingIOError, RuntimeError]
    with pytest.raises(BlockingIOError, match="is being written"):
        make_store(out, ["a"], overwrite=True)
    for i, unit in enumerate(units(stores[0], predicted)):
        sample, start, stop = unit
        outputs[i % 2].write(sample, start, pixels(predicted, sample, start, stop))
    assert together(lambda rank: outputs[rank].finish(), 2) == [out, out]
    assert together(lambda rank: stores[rank].wait(), 2) == [None, None]
    assert np.array_equal(open_images(out).image_stacks[0].data, whole(predicted))
    assert list(tmp_path.iterdir()) == [out]


def test_a_rank_holds_the_results_when_the_first_has_died(tmp_path):
    out, predicted = tmp_path / "a.zarr", make_predicted("TYX")
    stores = together(lambda rank: make_store(out, ["a"], rank=rank, world_size=2, timeout=30), 2)
    stores[1].open(predicted)
    stores[0].abandon()
    with pytest.raises(BlockingIOError, match="is being written"):
        make_store(out, ["a"], resume=True)
    stores[1].abandon()
    make_store(out, ["a"], resume=True)


def test_ranks_are_told_of_an_error_whatever_an_earlier_run_left(tmp_path):
    folder = tmp_path / "ranks"
    assert together(lambda rank: Ranks(folder, Shard(rank, 3), 30).share(lambda: "first"), 3)
    (folder / ".DS_Store").touch()
    (folder / "a folder").mkdir()

    def fail():
        raise ValueError("not today")

    def late(rank):
        time.sleep(0.3 * (rank > 0))
        return Ranks(folder, Shard(rank, 3), 5).share(fail)

    found = together(late, 3)
    assert [type(error) for error in found] == [ValueError, RuntimeError, RuntimeError]
    assert "not today" in str(found[2])
    assert (
        together(lambda rank: Ranks(folder, Shard(rank, 3), 30).share(lambda: "next"), 3)
        == ["next"] * 3
    )
