"""Claims: a run says which results of a folder it writes, so that no other run writes the same."""

from __future__ import annotations

import json
import os
import platform
import time
import uuid
import weakref
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

_PAUSE = 0.01
_PATIENCE = 10.0
"""Seconds after which an undecided run, begun at the same time, is taken for one that writes."""

_ENDED = "\nheld"
"""Ends the file of a claim that is decided."""


class Claim:
    """Results of a folder that a run writes.

    A hidden file in the folder says so. Its process keeps it locked, and the lock ends with the
    process however that ends: what a dead process had claimed is free. Others may write other
    results to the same folder. Where a file system has no locks, a process counts as alive unless
    it is known to be gone from this host.

    Parameters
    ----------
    folder : Path
        Where the results go; it exists.
    results : sequence of str
        Their names.
    run : str or None, default None
        The run of an earlier claim, which this process has a part in. None is a new run.

    Attributes
    ----------
    run : str
        What the claims of all processes of a run have in common.

    Raises
    ------
    BlockingIOError
        Another run writes one of the results; the message says which.
    """

    def __init__(self, folder: Path, results: Sequence[str], run: str | None = None) -> None:
        self._folder, self._left = folder, set(results)
        # compared in lower case: some file systems do not tell capitals apart
        self._names = {name.lower(): name for name in results}
        token = uuid.uuid4().hex
        self.run, self._token = run or token, token
        self._path = folder / f".gpu_patch-{token}.run"
        descriptor, locked = _make(self._path)
        self._end = weakref.finalize(self, _close, descriptor, self._path, os.getpid())
        try:
            record = {
                "run": self.run,
                "results": sorted(self._names),
                "process": os.getpid(),
                "host": platform.node(),
                "since": f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S %z}",
                "locked": locked,
            }
            _write(descriptor, json.dumps(record))
            if run is None:
                self._settle()
            _write(descriptor, _ENDED)
        except BaseException:
            self.release()
            raise

    def done(self, result: str) -> None:
        """Give up a result; the claim ends with the last."""
        self._left.discard(result)
        if not self._left:
            self.release()

    def release(self) -> None:
        """End the claim."""
        self._end()

    def _settle(self) -> None:
        """Return when no other run claims the results.

        Each run writes its claim before it looks at those of others, so that of two at least one
        sees the other. Where both are undecided, the one with the smaller token goes on.
        """
        until = time.monotonic() + _PATIENCE
        while True:
            undecided = None
            for other in self._others():
                shared = self._names.keys() & set(other.record.get("results", ()))
                if other.record and (not shared or other.record["run"] == self.run):
                    continue
                if other.held or (other.record and other.path < self._path):
                    raise self._refused(other)
                undecided = other
            if undecided is None:
                return
            if time.monotonic() > until:
                raise self._refused(undecided)
            time.sleep(_PAUSE)

    def _others(self) -> Iterator[_Other]:
        for path in sorted(self._folder.glob(".gpu_patch-*.run")):
            if path != self._path:
                found = _read(path)
                if found is not None:
                    yield found

    def _refused(self, other: _Other) -> BlockingIOError:
        record = other.record
        shared = sorted(self._names.keys() & set(record.get("results", ()))) or sorted(self._names)
        here = record.get("host") == platform.node()
        message = (
            f"{self._folder / self._names[shared[0]]} is being written by another run: "
            f"{_described(record)}. Wait until it has ended, or stop it"
        )
        if not here or not record.get("locked"):
            message += f". If it is certain that it runs no more, remove {other.path}"
        return BlockingIOError(message)


def writer_of(folder: Path, result: str) -> str:
    """Say which process writes a result of a folder, "" where none does."""
    for path in sorted(folder.glob(".gpu_patch-*.run")):
        found = _read(path)
        if found is not None and result.lower() in found.record.get("results", ()):
            return _described(found.record)
    return ""


def _described(record: dict[str, Any]) -> str:
    """Say which process a claim is of, and since when."""
    process, host = record.get("process", "unknown"), record.get("host", "an unknown host")
    who = f"process {process} on {host}"
    if (process, host) == (os.getpid(), platform.node()):
        who = f"this process ({process} on {host})"
    return f"{who}, since {record.get('since', 'an unknown time')}"


class _Other(NamedTuple):
    """A claim of another process; its record is empty as long as it is being written."""

    path: Path
    record: dict[str, Any]
    held: bool


def _read(path: Path) -> _Other | None:
    """Return a claim; where its process is gone, remove it and return None."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        # a shared lock: of two that look at once, none takes the other for the claim's own process
        free = _lock(descriptor, exclusive=False)
        text = os.read(descriptor, os.fstat(descriptor).st_size + len(_ENDED)).decode()
    finally:
        os.close(descriptor)
    found, held, _ = text.partition(_ENDED)
    try:
        record = json.loads(found)
    except ValueError:
        record = {}
    if free if record.get("locked", free is not None) else _is_gone(record):
        path.unlink(missing_ok=True)
        return None
    return _Other(path, record, bool(held))


def _make(path: Path) -> tuple[int, bool]:
    """Return a new file, and whether it could be locked."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            locked = bool(_lock(descriptor, exclusive=True))
            # another process may have removed the file before it was locked, as that of a dead one
            if path.exists():
                _descriptors.add(descriptor)
                return descriptor, locked
        except BaseException:
            _remove(path)
            os.close(descriptor)
            raise
        os.close(descriptor)


def _write(descriptor: int, text: str) -> None:
    """Write all of it: a full disk takes a part first, and is an error at the next write."""
    left = text.encode()
    while left:
        left = left[os.write(descriptor, left) :]


def _lock(descriptor: int, *, exclusive: bool) -> bool | None:
    """Lock a file; return whether it is locked now, None where the file system has no locks."""
    try:
        import fcntl

        # waits for its own file, which others lock for a moment at most
        fcntl.flock(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return None
    return True


def _is_gone(record: dict[str, Any]) -> bool:
    """Tell whether a process, where files cannot be locked, is known to have ended."""
    if os.name != "posix" or record.get("host") != platform.node():
        return False
    try:
        os.kill(record["process"], 0)
    except ProcessLookupError:
        return True
    except OSError:  # a process of another user
        return False
    return False


def _remove(path: Path) -> None:
    with suppress(OSError):  # where the folder has been removed
        path.unlink(missing_ok=True)


def _close(descriptor: int, path: Path, process: int) -> None:
    if process == os.getpid():
        _remove(path)
        _descriptors.discard(descriptor)
        os.close(descriptor)


_descriptors: set[int] = set()
"""Open files of the claims of this process."""


def _forget() -> None:
    """Close them in a forked process, which would keep the locks when this one has ended."""
    while _descriptors:
        os.close(_descriptors.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
