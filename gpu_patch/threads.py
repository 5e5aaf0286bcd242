"""How many threads the CPU's kernels use."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path

from gpu_patch.checks import whole_number

VARIABLE = "GPU_PATCH_NUM_THREADS"
"""Environment variable that sets the number."""
_MOST = 1024
_CGROUP = Path("/sys/fs/cgroup")

_set: int | None = None


def set_num_threads(n: int | None) -> None:
    """Say how many threads the CPU's kernels use in this process.

    Batches are the same for any number. The kernels are those that were compiled; where NumPy
    computes instead, it uses its own.

    Parameters
    ----------
    n : int or None
        1 … 1024; None is the default of `get_num_threads` again.

    Raises
    ------
    TypeError, ValueError
        `n` is anything else.

    Examples
    --------
    >>> set_num_threads(2)
    >>> get_num_threads()
    2
    >>> set_num_threads(None)
    """
    global _set
    _set = None if n is None else whole_number("n", n, minimum=1, maximum=_MOST)


def get_num_threads() -> int:
    """Return how many threads the CPU's kernels use in this process.

    Returns
    -------
    int
        What `set_num_threads` said; else the environment variable GPU_PATCH_NUM_THREADS; else 1 in
        worker processes of torch's DataLoader and of multiprocessing, and elsewhere the cores that
        this process may use (affinity, control group), divided by LOCAL_WORLD_SIZE.

    Raises
    ------
    ValueError
        The variable holds no number in 1 … 1024.
    """
    return _default(os.getpid()) if _set is None else _set


@cache
def _default(process: int) -> int:
    """Return the number for a process; a forked one is another."""
    import multiprocessing  # takes longer than what most users of the package need

    if text := os.environ.get(VARIABLE, ""):
        if not (text.isdecimal() and 1 <= int(text) <= _MOST):
            raise ValueError(f"{VARIABLE} must be a number in 1 … {_MOST}, found {text!r}")
        return int(text)
    if multiprocessing.parent_process() is not None or _is_torch_worker():
        return 1
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "1")
    n_ranks = int(ranks) if ranks.isdecimal() else 1
    return min(_MOST, max(1, _n_cores() // max(1, n_ranks)))


def _is_torch_worker() -> bool:
    data = sys.modules.get("torch.utils.data")
    return data is not None and data.get_worker_info() is not None


def _n_cores() -> int:
    """Return the cores that this process may use."""
    may_be_bound = hasattr(os, "sched_getaffinity")
    n = len(os.sched_getaffinity(0)) if may_be_bound else os.cpu_count() or 1
    return max(1, min(n, int(_quota())))


def _quota() -> float:
    """Return the cores' worth of time that the control group may use, 1024 where it says none."""
    try:
        limit, period = (_CGROUP / "cpu.max").read_text().split()
        return float(limit) / float(period)
    except (OSError, ValueError):  # not there, or "max"
        pass
    try:
        limit = (_CGROUP / "cpu" / "cpu.cfs_quota_us").read_text()
        period = (_CGROUP / "cpu" / "cpu.cfs_period_us").read_text()
        return float(limit) / float(period) if float(limit) > 0 else float(_MOST)
    except (OSError, ValueError):
        return float(_MOST)
