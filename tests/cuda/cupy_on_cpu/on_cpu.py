"""What the device in host memory was asked for, and how it works: for tests.

Only where CuPy is loaded on it.
"""

import ctypes

import cupy  # noqa: F401  loads the library

DEFERRED, EAGER, DROPPED = range(3)
"""Work is done when somebody waits for it, or at once, or never."""

_library = ctypes.CDLL("libcuda.so.1")
_library.on_cpu_counter_names.restype = ctypes.c_char_p
_library.on_cpu_counters.restype = ctypes.POINTER(ctypes.c_int64)
_library.on_cpu_pending.restype = ctypes.c_int64
_library.on_cpu_set_capacity.argtypes = [ctypes.c_size_t]
_NAMES = _library.on_cpu_counter_names().decode().split()
_counters = _library.on_cpu_counters()


def counts() -> dict[str, int]:
    """What was asked for since `reset`, without what was not."""
    return {name: _counters[i] for i, name in enumerate(_NAMES) if _counters[i]}


def reset() -> None:
    """Count from zero again."""
    for i in range(len(_NAMES)):
        _counters[i] = 0


def pending() -> int:
    """How much work nobody has waited for yet."""
    return _library.on_cpu_pending()


def set_mode(mode: int) -> None:
    """Do all work that waits, and from now on as `mode` says."""
    _library.on_cpu_set_mode(mode)


def set_capacity(n_bytes: int) -> None:
    """Make the device so large."""
    _library.on_cpu_set_capacity(n_bytes)


def forget_error() -> None:
    """Let the device go on after an error, which a real one does not."""
    _library.on_cpu_forget_error()
