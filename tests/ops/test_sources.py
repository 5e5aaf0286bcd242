"""Columns of a batch that do not go together are refused by name, whoever computes."""

from __future__ import annotations

import numpy as np
import pytest
from pixels import distinct

from gpu_patch.sources import ChannelSources


def columns(n_samples=2, n_places=1, n_channels=3, n_dims=2):
    shape = (n_samples, n_places)
    return ChannelSources(
        *np.zeros((2, *shape), np.int64),
        np.zeros((*shape, n_dims), np.int64),
        np.arange(n_channels),
    )


@pytest.mark.parametrize(
    ("sources", "weights", "words"),
    [
        (columns(n_channels=0), (2, 0), "sources.channels is empty"),
        (columns(n_places=2), (2, 3), r"one column, or 3, .* found the shape \(2, 2\)"),
        (
            columns(n_places=3)._replace(sample_idx=np.zeros((2, 1), np.int64)),
            (2, 3),
            r"sources.sample_idx must have the shape \(2, 3\), found \(2, 1\)",
        ),
        (columns(n_dims=3), (2, 3), r"coords must have the shape \(2, 1, 2\), found \(2, 1, 3\)"),
        (columns(), (1, 3), r"weights must have the shape \(2, 3\), found \(1, 3\)"),
        (columns(), (2, 1), r"weights must have the shape \(2, 3\), found \(2, 1\)"),
    ],
)
def test_columns_of_other_lengths(backend, sources, weights, words):
    images = [distinct((1, 3, 30, 30), "uint16")]
    with pytest.raises(ValueError, match=words):
        backend.lateral_context(
            images, sources, np.ones(weights, np.float32), (8, 8), 2, mode="reflect"
        )
    if not words.startswith("weights"):
        with pytest.raises(ValueError, match=words):
            backend.gather(images, sources, (8, 8))
