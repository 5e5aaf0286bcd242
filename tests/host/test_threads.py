"""The number of threads, and what the pool survives: forks, several callers, workers of others."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from cases import Case

import gpu_patch
from gpu_patch import threads

FORKS = 10


@pytest.fixture(autouse=True)
def default_threads(monkeypatch):
    monkeypatch.delenv(threads.VARIABLE, raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    threads.set_num_threads(None)
    threads._default.cache_clear()
    yield
    threads.set_num_threads(None)
    threads._default.cache_clear()


@pytest.fixture
def case():
    return Case.random(0, (64, 64), 3, "reflect", n_samples=8, least=300, most=400)


def test_the_default_is_what_this_process_may_use(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr(threads, "_quota", lambda: 1024.0)
    assert gpu_patch.get_num_threads() == 6


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "250000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 6),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 6),
        ({}, 6),
    ],
)
def test_a_control_group_limits_it(monkeypatch, tmp_path, files, cores):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(threads, "_CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert gpu_patch.get_num_threads() == cores


def test_ranks_of_a_machine_share_it(monkeypatch):
    monkeypatch.setattr(threads, "_n_cores", lambda: 13)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert gpu_patch.get_num_threads() == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    threads._default.cache_clear()
    assert gpu_patch.get_num_threads() == 1


def test_the_variable_and_the_function_decide(monkeypatch):
    monkeypatch.setenv(threads.VARIABLE, "5")
    assert gpu_patch.get_num_threads() == 5
    gpu_patch.set_num_threads(3)
    assert gpu_patch.get_num_threads() == 3
    gpu_patch.set_num_threads(None)
    assert gpu_patch.get_num_threads() == 5


@pytest.mark.parametrize("text", ["0", "-1", "two", "1025", "1.5"])
def test_a_wrong_variable_is_named(monkeypatch, text):
    monkeypatch.setenv(threads.VARIABLE, text)
    with pytest.raises(ValueError, match=f"GPU_PATCH_NUM_THREADS must be .* found '{text}'"):
        gpu_patch.get_num_threads()


@pytest.mark.parametrize(
    ("n", "error"), [(0, ValueError), (1025, ValueError), (1.5, ValueError), (True, TypeError)]
)
def test_a_wrong_number_is_named(n, error):
    with pytest.raises(error, match="n must be"):
        gpu_patch.set_num_threads(n)
    assert gpu_patch.get_num_threads() == threads._default(os.getpid())


def _report(queue):
    queue.put(gpu_patch.get_num_threads())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_multiprocessing_have_one(method):
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    worker = context.Process(target=_report, args=(queue,))
    worker.start()
    assert queue.get(timeout=60) == 1
    worker.join()


def digest(found):
    return b"".join(array.tobytes() for array in found)


THOUSAND_FORKS = """
import ctypes, os, sys

class Job(ctypes.Structure):
    _fields_ = [("n_tiles", ctypes.c_int64), ("n_values", ctypes.c_int64)] + [
        (name, ctypes.c_int32) for name in ("is_half", "number", "n_samples", "n_threads")
    ]

kernel = ctypes.CDLL(sys.argv[1]).add_sample
values = (ctypes.c_float * (8 * 8))(*range(8 * 8))
expected = b"".join(bytes(values)[i : i + 32] + bytes(32) for i in range(0, 256, 32))

def is_right():
    moments = (ctypes.c_float * (2 * 8 * 8))()
    return kernel(ctypes.byref(Job(8, 8, 0, 1, 2, 3)), values, moments) == 0 and (
        bytes(moments) == expected
    )

assert is_right()
for i in range(1000):
    child = os.fork()
    if child == 0:
        os._exit(0 if is_right() else 1)
    assert os.waitpid(child, 0)[1] == 0 and is_right(), i
print(i + 1)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_pool_survives_a_thousand_forks(compiled):
    """In a process of little memory, which is quick to fork."""
    command = [sys.executable, "-S", "-c", THOUSAND_FORKS, str(compiled.path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.stderr) == ("1000\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_the_pool_survives_forks(compiled, case):
    """Children compute with threads of their own, the parent goes on, and nobody hangs."""
    gpu_patch.set_num_threads(3)
    expected = digest(case.host_context(compiled))
    for i in range(FORKS):
        child = os.fork()
        if child == 0:
            found = digest(case.host_context(compiled))
            grandchild = os.fork() if i % 10 == 0 else -1
            if grandchild == 0:
                os._exit(int(digest(case.host_context(compiled)) != expected))
            wrong = found != expected
            if grandchild > 0:
                wrong |= os.waitpid(grandchild, 0)[1] != 0
            os._exit(int(wrong))
        assert os.waitpid(child, 0)[1] == 0
        assert digest(case.host_context(compiled)) == expected


def test_several_python_threads_at_once(compiled, case):
    gpu_patch.set_num_threads(3)
    expected, wrong = digest(case.host_context(compiled)), []

    def loop():
        for _ in range(20):
            if digest(case.host_context(compiled)) != expected:
                wrong.append(1)

    callers = [threading.Thread(target=loop) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


def test_a_process_ends_while_threads_wait(compiled):
    """No thread of the pool keeps a process, and none crashes it on the way out."""
    text = (
        "import sys; sys.path[:0] = [sys.argv[1], sys.argv[2]]\n"
        "import gpu_patch\nfrom cases import Case\nfrom gpu_patch._host import library\n"
        "gpu_patch.set_num_threads(4)\n"
        "case = Case.random(0, (64, 64), 3, 'reflect', n_samples=8, least=300, most=400)\n"
        "found = library.Library(sys.argv[3], library.build.library_path(sys.argv[3]))\n"
        "print(case.host_context(found)[0].shape)\n"
    )
    tests = Path(__file__).parents[1]
    arguments = [str(tests), str(tests / "cuda"), compiled.level]
    done = subprocess.run(
        [sys.executable, "-c", text, *arguments],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == "(8, 3, 64, 64)"


@pytest.mark.skipif(sys.platform != "linux", reason="needs limits of memory that hold")
def test_a_thread_without_memory_is_a_memory_error(compiled):
    """One scale needs more than there is: the call raises, and the next one works."""
    import resource

    case = Case.random(0, (1, 1 << 22), 4, "reflect", n_samples=4, least=2, most=3)
    small = Case.random(0, (8, 8), 2, "reflect")
    expected = digest(small.host_context(compiled))
    limits = resource.getrlimit(resource.RLIMIT_AS)
    gpu_patch.set_num_threads(2)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    outputs = 4 * (1 << 22) * 4 * 6
    resource.setrlimit(resource.RLIMIT_AS, (used + outputs + (300 << 20), limits[1]))
    try:
        with pytest.raises(MemoryError):
            case.host_context(compiled)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert digest(small.host_context(compiled)) == expected
    assert np.isfinite(small.host_context(compiled)[0]).all()
