"""Runs that are killed at each step that changes a folder: `killer.py FOLDER ENDING [STRIDE]`.

Processes are forked before zarr-python has threads. What went wrong after which step is printed as
JSON, with how many were killed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import traceback
from functools import partial
from pathlib import Path

import numpy as np
import tifffile  # noqa: F401 - once, and not in each process
import zarr  # noqa: F401

import gpu_patch
from gpu_patch import predict
from gpu_patch.predict.outputs.ome_zarr import multiscale

STEPS = ("rename", "replace", "unlink", "rmdir", "mkdir")
ARRAY = np.arange(40 * 50, dtype=np.float32).reshape(40, 50)


def run(out, value, fail_at=None, **options):
    """Predict `ARRAY` plus a value."""
    calls = []

    def model(x):
        calls.append(None)
        if len(calls) == fail_at:
            raise RuntimeError("broken")
        return x + value

    if out.name.endswith(".zarr"):
        options["chunk_size"] = (16, 64)
    image = gpu_patch.ImageStack.from_array(ARRAY, "YX", device="cpu")
    tiles = {"tile_size": (16, 16), "overlaps": (0, 0), "batch_size": 4, "progress": False}
    # where it fails is no part of it
    return predict(image, model, out=out, model_id="one", **tiles, **options)


def read(out):
    """What a result is more than `ARRAY`."""
    stack = gpu_patch.open_images(out, "YX", device="cpu").image_stacks[0]
    return np.unique(stack.data[0, 0] - ARRAY).tolist()


def in_child(work):
    """Do something in a forked process; return its exit status, 0 where it went well."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def killed_at(step, work):
    """Do something and be killed just before a step, counted from 0."""
    steps = iter(range(step))

    def counted(function, *arguments, **options):
        if next(steps, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)

    for name in STEPS:
        setattr(os, name, partial(counted, getattr(os, name)))
    work()


def before_nothing(out):
    """A first run."""


def before_old(out):
    """A result is there."""
    run(out, 1)


def before_unfinished(out):
    """A run had ended early."""
    try:
        run(out, 1, fail_at=3)
    except RuntimeError:
        return
    raise AssertionError("the model was not asked often enough")


# what was there, how the killed run was asked, and how the next one is, which has to end well
SITUATIONS = [
    (before_nothing, {}, {"overwrite": True}),
    (before_old, {"overwrite": True}, {"overwrite": True}),
]
OF_ZARR = [
    (before_nothing, {}, {"resume": True}),
    (before_nothing, {}, {}),
    (before_old, {"overwrite": True}, {"overwrite": True, "resume": True}),
    (before_unfinished, {"overwrite": True}, {"overwrite": True}),
    (before_unfinished, {"resume": True}, {"resume": True}),
    (before_unfinished, {"overwrite": True}, {}),
]


def next_run(out, value, options):
    """What is there is whole; then go on."""
    if out.exists():
        assert read(out) in ([1.0], [2.0]), read(out)
    try:
        run(out, value, **options)
    except FileExistsError as error:  # right where nothing was allowed
        if options or not any(word in str(error) for word in ("exists:", "unfinished")):
            raise
        run(out, value, overwrite=True)
    # what is complete stays where a run goes on
    assert read(out) in ([value], [1.0] if options.get("resume") else []), read(out)
    assert list(out.parent.iterdir()) == [out], os.listdir(out.parent)


def killed_and_gone_on_with(folder, ending, step, situation):
    """Be killed in a situation; return what went wrong, and None where that step never came.

    What was there before is in `folder` for all steps.
    """
    before, options, then = situation
    value = 1 if before is before_unfinished and options.get("resume") else 2
    place = folder.with_name(f"{folder.name}-{step}")
    shutil.copytree(folder, place)
    out = place / f"o{ending}"
    status = in_child(partial(killed_at, step, partial(run, out, value, **options)))
    if status == 0:
        return None
    wrong = status != -signal.SIGKILL or in_child(partial(next_run, out, value, then))
    shutil.rmtree(place)
    return [f"{before.__name__}, {options}, then {then}, step {step}: {status}"] if wrong else []


def main(folder, ending, stride="1"):
    multiscale.SMALLEST = 32  # pyramids of small images
    wrong, n_killed, stride = [], 0, int(stride)
    for number, situation in enumerate(SITUATIONS + OF_ZARR * (ending == ".ome.zarr")):
        place = Path(folder, str(number))
        place.mkdir(parents=True)
        assert in_child(partial(situation[0], place / f"o{ending}")) == 0
        for step in range(number % stride, 1000, stride):
            found = killed_and_gone_on_with(place, ending, step, situation)
            if found is None:
                break
            n_killed += 1
            wrong += found
    print(json.dumps({"killed": n_killed, "wrong": wrong}))


if __name__ == "__main__":
    main(*sys.argv[1:])
