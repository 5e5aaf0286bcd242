"""Writers that end at random moments, until there is a result: `kills.py FOLDER N_KILLS [SEED]`.

Four processes write sharded OME-Zarr images together, or a TIFF each. They are killed, asked to
end, have no room on the disk, or one of the four is gone; then they are begun again, up to four
times. After each time what has a name is whole, and in the end every file is, byte by byte, as it
is when nobody disturbs. Prints, as JSON, how often each of these ended a writer and what was wrong.

Processes are forked before zarr-python has threads.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import tifffile  # noqa: F401 - once, and not in each process
from pixels import distinct
from predict_contents import contents, parts

import gpu_patch
from gpu_patch.predict.outputs.ome_zarr import (
    chunk_store,  # noqa: F401 - likewise, with zarr-python
    multiscale,
)

N_WRITERS = 4
SHAPES = {"YX": (150, 70), "TYX": (2, 70, 65), "XY": (120, 40), "SYX": (2, 20, 25)}
TILES = {"tile_size": (32, 32), "overlaps": (8, 8), "blend": "hann", "batch_size": 4}
SHARDS = {"chunk_size": (16, 16), "shard_size": (32, 64)}
LEFT_ALONE = ("TimeoutError: rank", "RuntimeError: rank 0 could not begin")
NO_ROOM = "[Errno 27] File too large"


def write(kind, folder, number, value, timeout):
    """One of the writers: predict the images plus a value, in one channel, and twice that."""

    def model(x):
        return np.concatenate([x + value, 2 * x], axis=1)

    images = [
        gpu_patch.ImageStack.from_array(distinct(shape, "uint16", i), axes, device="cpu")
        for i, (axes, shape) in enumerate(SHAPES.items())
    ]
    options = {**TILES, "overwrite": True, "progress": False, "model_id": str(value)}
    if kind == "tiff":
        gpu_patch.predict(images[number], model, out=folder / f"{number}.ome.tif", **options)
    else:
        options |= {"resume": True, "rank": number, "world_size": N_WRITERS, "timeout": timeout}
        gpu_patch.predict(images, model, out=folder, **SHARDS, **options)


class Writer:
    """A process that writes, and ends on SIGTERM as the documentation of `predict` advises."""

    def __init__(self, *arguments):
        self._errors, errors = os.pipe()  # which hold more than a traceback
        self.process = os.fork()
        if not self.process:
            os.dup2(errors, 2)
            os._exit(self._run(arguments))
        os.close(errors)

    @staticmethod
    def _run(arguments):
        try:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
            write(*arguments)
        except SystemExit as end:
            return end.code
        except BaseException:
            traceback.print_exc()
            return 1
        return 0

    def wait(self):
        """Return the exit status, and what was said at the end."""
        status = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        with open(self._errors, "rb") as errors:
            said = errors.read().decode().strip()
        return status, said.rpartition("\n")[2] if status == 1 else ""


def start(*arguments, value=2, timeout=60.0):
    return [Writer(*arguments, number, value, timeout) for number in range(N_WRITERS)]


def undisturbed(kind, folder, value):
    """Write to a folder; return how long that took, and what was wrong."""
    begun = time.monotonic()
    ended = [writer.wait() for writer in start(kind, folder, value=value)]
    return time.monotonic() - begun, [said or status for status, said in ended if status]


def kill(writers, rng):
    for writer in writers:
        os.kill(writer.process, signal.SIGKILL)
        time.sleep(rng.choice([0, 0, 0.01]))


def terminate(writers, rng):
    for writer in writers:
        os.kill(writer.process, signal.SIGTERM)


def lose_one(writers, rng):
    os.kill(writers[rng.integers(N_WRITERS)].process, signal.SIGKILL)


def fill_the_disk(writers, rng):
    """No file grows any more, or not beyond some bytes."""
    room = int(rng.choice([0, 100, 2000]))
    for writer in writers:
        resource.prlimit(writer.process, resource.RLIMIT_FSIZE, (room, room))


WAYS = {"SIGKILL": kill, "SIGTERM": terminate, "one of four": lose_one, "full disk": fill_the_disk}
STATUS = {"SIGKILL": -9, "SIGTERM": 143, "one of four": -9, "full disk": 1}


class Story:
    """Writers of one kind, which are disturbed again and again."""

    def __init__(self, kind, folder, rng):
        self.kind, self._rng, self._out = kind, rng, folder / f"{kind} out"
        self._old, new = folder / f"{kind} old", folder / f"{kind} new"
        self.wrong, self.n_kills = undisturbed(kind, self._old, 1)[1], 0
        self._seconds, wrong = undisturbed(kind, new, 2)
        self.wrong += wrong
        self._new = contents(new)
        self._whole = [parts(contents(self._old)), parts(self._new)]

    def tell(self):
        """Disturb writers up to four times, then no more; return in which ways they ended."""
        if self._rng.random() < 0.3:
            shutil.copytree(self._old, self._out)
        ways = []
        for _ in range(4):
            way = str(self._rng.choice(list(WAYS)))
            writers = start(self.kind, self._out, timeout=0.3)
            time.sleep(self._rng.uniform(0, self._seconds))
            WAYS[way](writers, self._rng)
            ended = [writer.wait() for writer in writers]
            if any(status == STATUS[way] for status, _ in ended):
                ways.append(way)
            self._check(way, ended)
            if not any(status for status, _ in ended):
                break
        self.wrong += [f"{ways}, then: {each}" for each in undisturbed(self.kind, self._out, 2)[1]]
        found = contents(self._out)
        if found != self._new:
            names = {n for n in {**found, **self._new} if found.get(n) != self._new.get(n)}
            self.wrong.append(f"{self.kind}, {ways}: other bytes in {sorted(names)}")
        shutil.rmtree(self._out, ignore_errors=True)
        self.n_kills += len(ways)
        return ways

    def _check(self, way, ended):
        """Nobody ended in another way than was to be, and what has a name is whole."""
        for status, said in ended:
            # by SIGTERM itself, where it came before the handler was set
            allowed = status in (0, 1, STATUS[way], -15 if way == "SIGTERM" else 0)
            if not allowed or (
                status == 1 and not any(words in said for words in (*LEFT_ALONE, NO_ROOM))
            ):
                self.wrong.append(f"{self.kind}, {way}: {status} {said}")
        if self._out.exists():
            for name, files in parts(contents(self._out)).items():
                if files not in [whole.get(name) for whole in self._whole]:
                    self.wrong.append(f"{self.kind}, {way}: {name} is not whole")


def main(folder, n_kills, seed="0"):
    multiscale.SMALLEST = 32  # pyramids of small images
    os.environ["GPU_PATCH_DEVICE"] = "cpu"
    rng = np.random.default_rng(int(seed))
    stories = [Story(kind, Path(folder), rng) for kind in ("ome-zarr", "tiff")]
    counts = Counter()
    while counts.total() < int(n_kills):
        story = min(stories, key=lambda story: story.n_kills)
        counts.update(f"{story.kind}, {way}" for way in story.tell())
    wrong = [each for story in stories for each in story.wrong]
    print(json.dumps({"kills": counts.total(), "ways": counts, "wrong": wrong}, indent=2))


if __name__ == "__main__":
    main(*sys.argv[1:])
