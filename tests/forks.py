"""Processes that are forked from one that has imported what they need, rather than started anew."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time

_METHODS = multiprocessing.get_all_start_methods()
_CONTEXT = multiprocessing.get_context("forkserver" if "forkserver" in _METHODS else "spawn")
if "forkserver" in _METHODS:
    _CONTEXT.set_forkserver_preload(
        ["writer", "predictor", "gpu_patch.predict.outputs.ome_zarr.chunk_store"]
    )
# for the process that is forked: where the tests' modules are, and that it has one thread
_ENVIRONMENT = {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}


class Fork:
    """A process that calls a function of a module, which has been imported once.

    What it writes to stderr is in `errors`, a traceback too.
    """

    def __init__(self, function, *arguments, errors):
        self.arguments, self._errors = arguments, errors
        self._process = _CONTEXT.Process(target=_call, args=(function, arguments, errors))
        before = {name: os.environ.get(name) for name in _ENVIRONMENT}
        os.environ.update(_ENVIRONMENT)
        try:
            self._process.start()
        finally:
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value

    @property
    def errors(self):
        return self._errors.read_text() if self._errors.exists() else ""

    @property
    def is_alive(self):
        return self._process.is_alive()

    def kill(self):
        """Kill it by SIGKILL, and wait until it is gone."""
        self._process.kill()
        return self.wait()

    def wait(self):
        """Return its exit status; that of a signal is negative."""
        self._process.join(120)
        assert not self.is_alive, self.arguments
        return self._process.exitcode

    def wait_until(self, reached):
        """Wait until something is so, while it lives."""
        until = time.monotonic() + 60
        while not reached():
            assert self.is_alive, self.errors
            assert time.monotonic() < until
            time.sleep(0.001)


def _call(function, arguments, errors):
    descriptor = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 2)
    function(*arguments)
