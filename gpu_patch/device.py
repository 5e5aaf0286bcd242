"""Where arrays live."""

from __future__ import annotations

import os

from gpu_patch.errors import instance

ENVIRONMENT_VARIABLE = "GPU_PATCH_DEVICE"


def resolve(device: str | None) -> str:
    """Return the device to use.

    Parameters
    ----------
    device : str or None
        "cpu"; None is what the environment variable ``GPU_PATCH_DEVICE`` says, else "cpu".

    Raises
    ------
    RuntimeError
        Where CUDA is asked for: it is never replaced silently by the CPU.
    ValueError
        For any other name.
    """
    name, origin = device, "device"
    if name is None:
        name, origin = os.environ.get(ENVIRONMENT_VARIABLE, "cpu"), ENVIRONMENT_VARIABLE
    instance(origin, name, str, "'cpu' or None")
    if name == "cpu":
        return name
    kind, _, number = name.partition(":")
    if kind == "cuda" and (not number or number.isdigit()):
        raise RuntimeError(
            f"{origin} is {name!r}, but this version of gpu_patch has no CUDA backend: "
            "use device='cpu'"
        )
    raise ValueError(f"{origin} must be 'cpu' (or None for the default), found {name!r}")
