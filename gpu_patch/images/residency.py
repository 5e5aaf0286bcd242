"""What is resident, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpu_patch import device as devices
from gpu_patch.chunks import ChunkedImage
from gpu_patch.images.budget import size_text
from gpu_patch.images.stack import ImageStack, alive


@dataclass(frozen=True)
class Residency:
    """The image stacks of this process; printed, a table with a total and what is free.

    Attributes
    ----------
    stacks : tuple of ImageStack
        The largest of each device first.
    """

    stacks: Sequence[ImageStack]

    @property
    def nbytes(self) -> dict[str, int]:
        """Bytes of the images on each device now; stacks of the very same array count once."""
        found: dict[str, dict[int, int]] = {}
        for stack in self.stacks:
            sizes = found.setdefault(stack.device, {})
            chunked = isinstance(stack.data, ChunkedImage)
            address = -stack.data.number - 1 if chunked else devices.address(stack.data)
            sizes[address] = max(stack.nbytes, sizes.get(address, 0))
        return {device: sum(sizes.values()) for device, sizes in found.items()}

    def __str__(self) -> str:
        if not self.stacks:
            return "no images are resident"
        lines = []
        for device, total in self.nbytes.items():
            free = devices.free_bytes(device)
            room = "" if free is None else f", {size_text(free)} free"
            lines.append(f"{device}: {size_text(total)} of images{room}")
            for stack in self.stacks:
                if stack.device == device:
                    shape = " x ".join(map(str, stack.data_shape))
                    part = ""
                    if isinstance(stack.data, ChunkedImage):
                        part = f" of {size_text(stack.data.total_bytes)}"
                    size = f"{size_text(stack.nbytes):>9}{part}"
                    lines.append(f"  {size}  {shape} {stack.data.dtype}  {stack.source}")
        return "\n".join(lines)


def residency() -> Residency:
    """Tell which images are resident, and where.

    Returns
    -------
    Residency
        To be printed, or read.

    Examples
    --------
    >>> import numpy as np
    >>> from gpu_patch import ImageStack
    >>> stack = ImageStack.from_array(np.zeros((2, 64, 96), np.uint16), "CYX", device="cpu")
    >>> stack in residency().stacks
    True
    """
    return Residency(tuple(sorted(alive, key=lambda stack: (stack.device, -stack.nbytes))))
