"""The random numbers of a batch's samples, drawn by counter."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpu_patch._host.draws import draw as host_draw
from gpu_patch._host.library import active
from gpu_patch.draws import DrawSpec, counter_words, draw


class CounterDraws:
    """The uniform numbers that every sample of a constructor needs, made in one go.

    Parameters
    ----------
    draw_specs : sequence of DrawSpec
        What a sample needs; `draws.counter_words` says of which counters.
    """

    def __init__(self, draw_specs: Sequence[DrawSpec]) -> None:
        self.draw_specs = tuple(draw_specs)
        self._words = counter_words(self.draw_specs)

    def __call__(
        self, seed: int, epoch: int, index: NDArray[np.int64]
    ) -> list[NDArray[np.float64]]:
        """Return one array (n_uniforms, B) of numbers in [0, 1) per spec.

        Parameters
        ----------
        seed : int
            Key, 0 ≤ seed < 2^64.
        epoch : int
            0 ≤ epoch < 2^32.
        index : array of int, shape (B,)
            Sample indices, 0 ≤ index < 2^56.
        """
        if not len(self._words):
            return [np.empty((0, len(index))) for _ in self.draw_specs]
        library = active()
        if library is None:
            uniforms = draw(self._words, seed, epoch, index)
        else:
            uniforms = host_draw(library, self._words, seed, epoch, index)
        result, at = [], 0
        for spec in self.draw_specs:
            result.append(uniforms[:, at : at + spec.n_uniforms].T)
            at += -(-spec.n_uniforms // 2) * 2
        return result
