"""Processes that claim results: `claimer.py hold|fork|race|apart FOLDER [ROUNDS PROCESSES]`."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from gpu_patch.predict.outputs.claims import Claim


def hold(folder):
    """Claim a result until the process is killed."""
    claim = Claim(folder, ["a.tif"])
    print("held", flush=True)
    sys.stdin.read()
    claim.release()


def fork(folder):
    """Likewise, with a forked process that lives until its input ends."""
    claim = Claim(folder, ["a.tif"])
    read, write = os.pipe()
    if os.fork() == 0:
        os.write(write, b"1")
        sys.stdin.read()
        claim.release()  # it is not this process' own
        os._exit(0)
    os.read(read, 1)  # the forked one runs: it has let go of what it must not hold
    print("held", flush=True)
    time.sleep(600)


def race(folder, n_rounds, n_processes, results):
    """Claim results in many processes at once; print how many got theirs, by round."""
    counts = []
    for _ in range(n_rounds):
        read, write = os.pipe()
        answers, answer = os.pipe()
        for number in range(n_processes):
            if os.fork() == 0:
                os.close(write)
                os.read(read, 1)  # returns when the parent closes its end
                try:
                    claim = Claim(folder, [results(number)])
                    os.write(answer, b"1")
                except BlockingIOError:
                    claim = None
                    os.write(answer, b"0")
                # until all have tried
                while len(list(Path(folder).glob("ended"))) == 0:
                    time.sleep(0.001)
                if claim:
                    claim.release()
                os._exit(0)
        os.close(read)
        os.close(write)
        found = b""
        while len(found) < n_processes:
            found += os.read(answers, n_processes)
        Path(folder, "ended").touch()
        for _ in range(n_processes):
            os.wait()
        Path(folder, "ended").unlink()
        os.close(answers)
        os.close(answer)
        counts.append(found.count(b"1"))
    print(json.dumps(counts))


if __name__ == "__main__":
    what, where, *numbers = sys.argv[1:]
    if what == "hold":
        hold(Path(where))
    elif what == "fork":
        fork(Path(where))
    else:
        names = {"race": lambda _: "a.tif", "apart": lambda number: f"{number}.tif"}
        race(Path(where), *map(int, numbers), names[what])
