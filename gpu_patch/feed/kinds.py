"""Kinds of normalisation, and the numbers that each is made of, checked."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np

from gpu_patch.checks import shorten

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Two numbers per channel, or two for all: means and stds, or lower and upper ends of a range."""

NAMES = {
    "mean_std": ("means", "stds"),
    "min_max": ("mins", "maxes"),
    "quantile": ("lower_quantile_values", "upper_quantile_values"),
}
"""Names of the statistics, as careamics has them."""
KINDS = (*NAMES, "none")
_LARGEST = float(np.finfo(np.float32).max)


def checked_statistics(kind: str, part: str, statistics: object) -> Statistics | None:
    """Return the statistics of `part`, input or target, as tuples of floats."""
    if statistics is None:
        return None
    if kind == "none":
        raise ValueError(f"{part}_statistics must be None for the kind 'none'")
    if not isinstance(statistics, Sequence) or len(statistics) != 2:
        raise TypeError(f"{part}_statistics must be a pair, found {shorten(statistics)}")
    names = [f"{part}_{name}" for name in NAMES[kind]]
    first, second = (_numbers(name, v) for name, v in zip(names, statistics, strict=True))
    if len(first) != len(second):
        raise ValueError(
            f"{names[0]} and {names[1]} must be equally many, found {len(first)} and {len(second)}"
        )
    for i, (a, b) in enumerate(zip(first, second, strict=True)):
        if kind == "mean_std" and b <= 0:
            raise ValueError(f"{names[1]}[{i}] must be positive, found {b}")
        if kind != "mean_std" and b <= a:
            raise ValueError(
                f"{names[1]}[{i}] must be larger than {names[0]}[{i}], found {b} and {a}"
            )
    return first, second


def _numbers(name: str, values: object) -> tuple[float, ...]:
    """Return a number, or a sequence of numbers, as finite floats."""
    listed = values.tolist() if isinstance(values, (np.ndarray, np.generic)) else values
    listed = [listed] if isinstance(listed, Real) else listed
    if isinstance(listed, (str, bytes)) or not isinstance(listed, Sequence):
        raise TypeError(f"{name} must be a number or a sequence of them, found {shorten(values)}")
    if not listed:
        raise ValueError(f"{name} is empty: it must have one number, or one per channel")
    for i, number in enumerate(listed):
        wanted = f"{name}[{i}] must be a number that is finite in float32, found {shorten(number)}"
        if isinstance(number, bool) or not isinstance(number, Real):
            raise TypeError(wanted)
        # NaN is refused too: no comparison with it is true
        if not abs(float(number)) <= _LARGEST:
            raise ValueError(wanted)
    return tuple(float(number) for number in listed)


def paired(kind: str, statistics: Sequence[Any]) -> list[Any]:
    """Return the pair of the input and that of the target, each of which may be missing whole.

    Parameters
    ----------
    kind : str
        What they are.
    statistics : sequence of 4
        Two of the input, two of the target; None where there is none.
    """
    pairs: list[Any] = []
    for part, pair in (("input", statistics[:2]), ("target", statistics[2:])):
        missing = [value is None for value in pair]
        if any(missing) and not all(missing):
            first, second = (f"{part}_{name}" for name in NAMES[kind])
            raise ValueError(f"{first} and {second} must be given together, one is None")
        pairs.append(None if all(missing) else pair)
    return pairs


def careamics_statistics(config: Any) -> tuple[str, list[Any]]:
    """Return kind and statistics, two of the input and two of the target, of careamics' config."""
    kind = getattr(config, "name", None)
    if kind not in KINDS:
        raise TypeError(
            "config must be one of careamics' MeanStdConfig, MinMaxConfig, QuantileConfig and "
            f"NoNormConfig, found {shorten(config)}"
        )
    if kind == "none":
        return kind, [None] * 4
    # careamics ignores the target's statistics where it skips the target
    parts = ("input",) if config.skip_target else ("input", "target")
    fields = [f"{part}_{name}" for part in parts for name in NAMES[kind]]
    found = [getattr(config, field) for field in fields]
    if found[0] is None or found[1] is None:
        raise ValueError(
            f"config has no {fields[0]} or no {fields[1]}: compute them first, with careamics' "
            "resolve_normalization_config or with compute_normalization"
        )
    return kind, [*found, None, None][:4]
