"""Digests of plain values, arrays and modules of Python: the same in every process."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from gpu_patch import device as devices
from gpu_patch.predict.code import is_installed, package


def combined(*parts: str | bytes) -> bytes:
    """Return the digest of several parts; where one ends and the next begins counts too."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.digest()


def of_array(value: Any) -> bytes | None:
    """Return the digest of an array's type, shape and values, wherever it is; None for others."""
    torch = sys.modules.get("torch")
    try:
        if torch is not None and isinstance(value, torch.Tensor):
            dense = value.detach().cpu().contiguous()
            values = dense.reshape(-1).view(torch.uint8).numpy()
            return _of_values(str(dense.dtype), tuple(dense.shape), values)
        if not hasattr(value, "dtype") or not hasattr(value, "shape") or isinstance(value, type):
            return None
        host = value.get() if devices.is_cuda_array(value) else np.asarray(value)
        if host.dtype.hasobject:
            return None
        values = np.ascontiguousarray(host).reshape(-1).view(np.uint8)
        return _of_values(str(host.dtype), host.shape, values)
    except Exception:  # arrays of other libraries: sparse, quantised, not yet initialised
        return None


def of_planes(pixels: Any) -> bytes:
    """Return the digest of an image SC(Z)YX, of which the host takes one channel at a time."""
    planes = (channel for sample in pixels for channel in sample)
    return combined(*(of_array(plane) or b"" for plane in planes))


def _of_values(dtype: str, shape: tuple[int, ...], values: Any) -> bytes:
    digest = hashlib.sha256(f"{dtype} {shape}".encode())
    digest.update(values.data)
    return digest.digest()


def of_module(module: ModuleType) -> bytes:
    """Return the digest of a module of Python: its name and version, or the user's own file."""
    file = getattr(module, "__file__", None)
    if file is None or is_installed(module.__name__):
        return combined("module", package(module.__name__))
    try:
        return combined("module", Path(file).read_bytes())
    except OSError:
        return combined("module", module.__name__)
