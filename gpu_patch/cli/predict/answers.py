"""Options of ``gpu-patch predict`` that say what becomes of what the model returns."""

from __future__ import annotations

import argparse

from gpu_patch.cli.arguments import Adds

NAMES = ("reduce", "channels", "dtype", "scale_factor", "add_offset")
"""Of the arguments of `gpu_patch.predict`."""


def add_answer(results: Adds) -> None:
    """Add them to a group."""
    results.add_argument(
        "--reduce",
        type=_reduce,
        metavar="HOW",
        help="argmax: the number of the largest channel, a label image; or quantiles of the "
        "samples, such as 0.05,0.5,0.95; default: their mean",
    )
    results.add_argument(
        "--channels",
        type=_channels,
        metavar="N",
        help="channels of the model that count, from 0 on, such as 0,2; default: all",
    )
    results.add_argument(
        "--dtype",
        help="float32, float16, or uint8, int8, uint16 or int16, rounded and cut to the range; "
        "default: float32, of labels the smallest that has their numbers",
    )
    results.add_argument(
        "--scale-factor",
        type=float,
        default=1.0,
        metavar="N",
        help="with --dtype: stored is (value - add_offset) / scale_factor, both kept in the "
        "metadata (default: 1)",
    )
    results.add_argument(
        "--add-offset", type=float, default=0.0, metavar="N", help="likewise (default: 0)"
    )


def described(options: argparse.Namespace) -> list[str]:
    """Say what was made of samples and channels."""
    words = [f"mean of {options.n_samples} samples"] * (options.n_samples > 1)
    if options.reduce == "argmax":
        return [*words, "number of the largest channel"]
    if options.reduce:
        at = ", ".join(f"{quantile:g}" for quantile in options.reduce)
        return [f"quantiles {at} of {options.n_samples} samples"]
    return words


def _reduce(text: str) -> str | tuple[float, ...]:
    """Parse argmax, or quantiles."""
    if text == "argmax":
        return text
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be argmax, or quantiles in 0 … 1, such as 0.05,0.5,0.95, found {text!r}"
        ) from None


def _channels(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be whole numbers, such as 0,2, found {text!r}"
        ) from None
