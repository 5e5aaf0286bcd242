"""Whether images fit in the memory that they may take."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from pathlib import Path

from gpu_patch import device as devices
from gpu_patch.checks import Message, argument, shorten, whole_number

DEFAULT_FRACTION = 0.8

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
          "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}  # fmt: skip
"""Followed by B, or not."""
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Budget:
    """Memory that images may take on a device.

    Attributes
    ----------
    device : str
        "cpu" or "cuda:N".
    limit : int or None
        Bytes; None where nobody set a limit and the system does not say what is free.
    free : int or None
        Bytes free on the device.
    """

    device: str
    limit: int | None
    free: int | None

    def holds(self, nbytes: int) -> bool:
        """Tell whether images of so many bytes fit."""
        return self.limit is None or nbytes <= self.limit


def make_budget(device: str, memory_budget: float | str | None) -> Budget:
    """Return the budget that a caller's argument means.

    Parameters
    ----------
    device : str
        "cpu" or "cuda:N".
    memory_budget : int, float, str or None
        Bytes as a whole number or with a unit, "8GB" or "8GiB"; or a fraction of what is free as a
        float in (0, 1]; None is 0.8.
    """
    if isinstance(memory_budget, str):
        memory_budget = _parsed(memory_budget)
    free = devices.free_bytes(device)
    if free is None:
        free = free_host_bytes()
    if memory_budget is None:
        memory_budget = DEFAULT_FRACTION
    if isinstance(memory_budget, Real) and not hasattr(memory_budget, "__index__"):
        if not 0 < memory_budget <= 1:
            raise _wrong(memory_budget)
        return Budget(device, None if free is None else int(free * memory_budget), free)
    return Budget(device, whole_number("memory_budget", memory_budget, minimum=1), free)


def _parsed(text: str) -> float:
    """Return bytes, or a fraction where there is a point and no unit."""
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)(e\d{1,2})?\s*([kmgt]?i?)(b?)\s*", text.lower())
    if found is None or found[3] not in _UNITS:
        raise _wrong(text)
    number, exponent, unit, byte = found.groups()
    if "." in number and not (exponent or unit or byte):
        return float(number)
    # exact, as floats are not for large numbers
    return int(Decimal(number + (exponent or "")) * _UNITS[unit])


def _wrong(found: object) -> ValueError:
    return ValueError(
        Message(
            argument("memory_budget"),
            " must be bytes, such as 8GB, 8GiB or a whole number, or a fraction in (0, 1] "
            f"of what is free, such as 0.5, found {shorten(found)}",
        )
    )


def free_host_bytes() -> int | None:
    """Return how much memory processes can still get without swapping; None where unknown."""
    found = [_available_memory(), _room_in_cgroup()]
    known = [number for number in found if number is not None]
    return min(known) if known else None


def _available_memory() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not on this system
        return None


def _room_in_cgroup() -> int | None:
    """Return a container's limit, less what it holds and cannot drop."""
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        held = int((_CGROUP / "memory.current").read_text())
        for line in (_CGROUP / "memory.stat").read_text().splitlines():
            if line.startswith("inactive_file "):
                held -= int(line.split()[1])
    except (OSError, ValueError):  # no limit, or no cgroup of version 2
        return None
    return max(0, limit - held)


def size_text(nbytes: int) -> str:
    """Return a number of bytes for people: "1.5 GB"."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if nbytes >= size:
            return f"{nbytes / size:.1f} {unit}"
    return f"{nbytes} B"
