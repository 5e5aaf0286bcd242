"""What is flushed survives a machine that stops: shown on a disk that forgets all else."""

from __future__ import annotations

import os
import stat
import threading

import numpy as np
import pytest
from pixels import distinct
from written import make_predicted, make_store, units, whole, write_unit

from gpu_patch import ImageStack, open_images, predict
from gpu_patch.predict.outputs.ome_zarr import multiscale

pytest.importorskip("zarr")
pytest.importorskip("tifffile")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="folders are flushed on POSIX alone")


class StoppedError(Exception):
    """The machine stops."""


class ForgetfulDisk:
    """The least that a disk holds: contents of files, and names of folders, as they were flushed.

    What moves to another folder is in one of the two, as file systems with a journal see to.
    """

    def __init__(self, monkeypatch):
        self.n_flushes, self.stop_at = 0, None
        self._files, self._folders, self._places, self._kept = {}, {}, {}, {}
        self._lock = threading.Lock()
        monkeypatch.setattr(os, "fsync", self._flush)

    def _flush(self, descriptor):
        with self._lock:
            if self.n_flushes == self.stop_at:
                raise StoppedError
            self.n_flushes += 1
            found = os.fstat(descriptor)
            if found.st_ino not in self._kept:  # which no other file gets as long as it is open
                self._kept[found.st_ino] = os.dup(descriptor)
            if not stat.S_ISDIR(found.st_mode):
                self._files[found.st_ino] = os.pread(descriptor, found.st_size, 0)
                return
            names = {}
            for name in os.listdir(descriptor):
                inner = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                names[name] = inner.st_ino, stat.S_ISDIR(inner.st_mode)
                self._places[inner.st_ino] = found.st_ino
            self._folders[found.st_ino] = names

    def restore(self, folder, to):
        """Make what is left of a folder when the machine runs again."""
        self._restore(folder.stat().st_ino, to)
        return to

    def _restore(self, number, to):
        to.mkdir()
        for name, (inner, is_folder) in self._folders.get(number, {}).items():
            if self._places[inner] != number:
                continue
            if is_folder:
                self._restore(inner, to / name)
            else:
                (to / name).write_bytes(self._files.get(inner, b""))

    def close(self):
        for descriptor in self._kept.values():
            os.close(descriptor)


@pytest.fixture
def disk(monkeypatch):
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")
    monkeypatch.setattr(multiscale, "SMALLEST", 32)
    found = ForgetfulDisk(monkeypatch)
    yield found
    found.close()


OPTIONS = {"chunk_size": (8, 16)}
PREDICTED = make_predicted("TYX", Y=20, X=40)


def write(folder, **options):
    """Write what is missing; yield before the first unit and after each, and at the end."""
    store = make_store(folder / "a.zarr", ["a"], **OPTIONS, **options)
    if store.finished("a"):
        return
    output = store.open(PREDICTED)
    try:
        for unit in units(store, PREDICTED):
            if unit[:2] not in store.done("a"):
                write_unit(output, PREDICTED, unit)
                yield unit
        output.finish()
        store.wait()
    except BaseException:
        output.close()
        store.abandon()
        raise


def contents(folder):
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.mark.parametrize("old", [False, True])
def test_a_machine_that_stops_loses_no_unit(tmp_path, disk, old):
    """At many moments; an old result stays whole until the new one is."""
    (tmp_path / "undisturbed").mkdir()
    list(write(tmp_path / "undisturbed"))
    expected = contents(tmp_path / "undisturbed" / "a.zarr")
    n_units, stops = 0, 0
    for stop_at in range(0, 1000, 17):
        folder = tmp_path / str(stop_at)
        folder.mkdir()
        if old:
            list(write(folder, fingerprint="old", durable=True))
        done = 0
        disk.stop_at = disk.n_flushes + stop_at
        try:
            for _ in write(folder, durable=True, overwrite=old):
                done += 1
            stopped = False
        except StoppedError:
            stopped = True
        disk.stop_at = None
        left = disk.restore(folder, tmp_path / f"{stop_at} left")
        if (left / "a.zarr").exists():
            found = open_images(left / "a.zarr").image_stacks[0].data
            np.testing.assert_array_equal(found, whole(PREDICTED))
        else:
            assert not old
            assert stopped
        store = make_store(left / "a.zarr", ["a"], resume=True, overwrite=old, **OPTIONS)
        assert store.finished("a") or len(store.done("a")) >= done
        store.abandon()
        list(write(left, resume=True, overwrite=old))
        assert contents(left / "a.zarr") == expected
        n_units, stops = max(n_units, done), stops + stopped
        if not stopped:
            break
    assert n_units == 9
    assert stops >= 6


def test_without_it_nothing_is_flushed(tmp_path, disk):
    list(write(tmp_path))
    assert disk.n_flushes == 0


@pytest.mark.parametrize("ending", [".npy", ".ome.tif", ".ome.zarr"])
def test_results_are_on_the_disk_when_predict_returns(tmp_path, disk, ending):
    """In folders that it made too."""
    image = distinct((75, 40), "uint16").astype(np.float32)
    out = tmp_path / "made" / "here" / f"o{ending}"
    predict(
        ImageStack.from_array(image, "YX"), lambda x: x + 1, tile_size=(32, 40), overlaps=(0, 0),
        out=out, progress=False, durable=True,
    )  # fmt: skip
    left = disk.restore(tmp_path, tmp_path.with_name(f"{tmp_path.name}-left"))
    (found,) = open_images(left / "made" / "here" / out.name, "YX").image_stacks
    np.testing.assert_array_equal(found.data[0, 0], image + 1)


def test_arrays_are_on_no_disk():
    with pytest.raises(ValueError, match=r"durable=True needs out, a path to write to"):
        make_store(None, ["a"], durable=True)


def test_what_an_earlier_run_left_is_flushed_too(tmp_path, disk):
    for count, _ in enumerate(write(tmp_path), 1):
        if count == 4:
            break
    for _ in write(tmp_path, durable=True, resume=True):
        break
    left = disk.restore(tmp_path, tmp_path.with_name(f"{tmp_path.name}-left"))
    store = make_store(left / "a.zarr", ["a"], resume=True, **OPTIONS)
    assert len(store.done("a")) == 5


def test_a_complete_result_of_an_earlier_run_is_flushed_too(tmp_path, disk):
    list(write(tmp_path))
    list(write(tmp_path, durable=True, resume=True))
    left = disk.restore(tmp_path, tmp_path.with_name(f"{tmp_path.name}-left"))
    assert contents(left / "a.zarr") == contents(tmp_path / "a.zarr")
