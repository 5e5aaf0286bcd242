"""Where the operations run: tests take each backend in turn through the fixture `backend`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from gpu_patch import ops


class Backend(NamedTuple):
    """Moves arrays; the operations themselves choose by where the images are."""

    name: str
    device: str
    to_device: Callable[[Any], Any]
    to_host: Callable[[Any], np.ndarray]

    def gather(self, images, rows, patch_size, **options):
        found = ops.gather([self.to_device(i) for i in images], rows, patch_size, **options)
        return self.to_host(found)

    def lateral_context(self, images, rows, weights, patch_size, n_scales, **options):
        inputs, targets = ops.lateral_context(
            [self.to_device(i) for i in images], rows, weights, patch_size, n_scales, **options
        )
        return self.to_host(inputs), self.to_host(targets)


BACKENDS = [Backend("numpy", "cpu", np.ascontiguousarray, np.asarray)]
