"""What is done to pixel values before a network sees them, and how predictions are taken back.

The definitions are those of careamics 0.3.5 (`careamics.dataset.normalization`): "mean_std" is
``(value − mean) / (std + 1e-6)``, "min_max" and "quantile" are
``(value − low) / (high − low + 1e-8)``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpu_patch.checks import Message, argument, choice, instance, mapping, shorten

Statistics = tuple[tuple[float, ...], tuple[float, ...]]
"""Two numbers per channel, or two for all: means and stds, or lower and upper ends of a range."""

NAMES = {
    "mean_std": ("means", "stds"),
    "min_max": ("mins", "maxes"),
    "quantile": ("lower_quantile_values", "upper_quantile_values"),
}
"""Names of the statistics, as careamics has them."""
KINDS = (*NAMES, "none")

_STD_EPS, _RANGE_EPS = 1e-6, 1e-8
_FORMAT, _VERSION = "gpu_patch normalization", 1
_LARGEST = float(np.finfo(np.float32).max)
_Float = TypeVar("_Float", bound=np.floating[Any])


class Inverse(NamedTuple):
    """How predictions are taken back, per channel: ``value * scale + rest + center``.

    Attributes
    ----------
    scale : array of float32, shape (C,)
        Factor.
    rest : array of float32, shape (C,)
        What the float32 center lacks of the exact one; added before it.
    center : array of float32, shape (C,)
        What 0 becomes.
    """

    scale: NDArray[np.float32]
    rest: NDArray[np.float32]
    center: NDArray[np.float32]


@dataclass(frozen=True, repr=False)
class Normalization:
    """How values are normalised: ``(value - center) * scale``, with the center subtracted first.

    So a small signal on a large background keeps its digits: values are as exact as float32
    images are. Make one with `mean_std`, `min_max`, `quantile` or `none` from known numbers, with
    `compute_normalization` from images, or with `load`. Equal numbers are equal objects.

    Parameters
    ----------
    kind : {"mean_std", "min_max", "quantile", "none"}
        What the statistics are.
    input_statistics : pair of sequence of float, or None
        Means and stds, or lower and upper ends: one each for all channels, or one per channel.
        The input of a constructor with lateral context is one channel, the mixture. None for
        the kind "none".
    target_statistics : pair of sequence of float, or None
        The same of the target.
    skip_target : bool, default False
        Whether targets stay as they are.

    Examples
    --------
    >>> normalization = Normalization.mean_std(100, 20, [90, 110], [15, 25])
    >>> normalization
    Normalization.mean_std(input_means=[100.0], input_stds=[20.0], target_means=[90.0, 110.0], \
target_stds=[15.0, 25.0])
    >>> normalization.input_scale
    array([0.05], dtype=float32)
    """

    kind: str
    input_statistics: Statistics | None
    target_statistics: Statistics | None = None
    skip_target: bool = False

    def __post_init__(self) -> None:
        choice("kind", self.kind, KINDS)
        instance("skip_target", self.skip_target, (bool, np.bool_), "True or False")
        checked: dict[str, Any] = {"skip_target": bool(self.skip_target)}
        for part in ("input", "target"):
            name = f"{part}_statistics"
            checked[name] = _checked_statistics(self.kind, part, getattr(self, name))
        if self.kind != "none" and checked["input_statistics"] is None:
            raise ValueError(f"input_statistics must be given for the kind {self.kind!r}")
        if self.skip_target and checked["target_statistics"] is not None:
            raise ValueError("skip_target is True, but statistics of the target are given")
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    @classmethod
    def mean_std(
        cls,
        input_means: ArrayLike,
        input_stds: ArrayLike,
        target_means: ArrayLike | None = None,
        target_stds: ArrayLike | None = None,
        *,
        skip_target: bool = False,
    ) -> Normalization:
        """Subtract means and divide by standard deviations.

        Parameters
        ----------
        input_means, input_stds : float or sequence of float
            One for all channels, or one per channel; standard deviations are positive.
        target_means, target_stds : float or sequence of float, optional
            The same of the target.
        skip_target : bool, default False
            Whether targets stay as they are.
        """
        statistics = (input_means, input_stds, target_means, target_stds)
        return cls._of("mean_std", statistics, skip_target)

    @classmethod
    def min_max(
        cls,
        input_mins: ArrayLike,
        input_maxes: ArrayLike,
        target_mins: ArrayLike | None = None,
        target_maxes: ArrayLike | None = None,
        *,
        skip_target: bool = False,
    ) -> Normalization:
        """Bring the range from minimum to maximum to 0 … 1.

        Parameters
        ----------
        input_mins, input_maxes : float or sequence of float
            One for all channels, or one per channel, each maximum above its minimum.
        target_mins, target_maxes : float or sequence of float, optional
            The same of the target.
        skip_target : bool, default False
            Whether targets stay as they are.
        """
        statistics = (input_mins, input_maxes, target_mins, target_maxes)
        return cls._of("min_max", statistics, skip_target)

    @classmethod
    def quantile(
        cls,
        input_lower_quantile_values: ArrayLike,
        input_upper_quantile_values: ArrayLike,
        target_lower_quantile_values: ArrayLike | None = None,
        target_upper_quantile_values: ArrayLike | None = None,
        *,
        skip_target: bool = False,
    ) -> Normalization:
        """Bring the range between two quantiles to 0 … 1; values outside are not cut.

        Parameters
        ----------
        input_lower_quantile_values, input_upper_quantile_values : float or sequence of float
            Values at the quantiles, one for all channels or one per channel, each upper one
            above its lower one.
        target_lower_quantile_values, target_upper_quantile_values : likewise, optional
            The same of the target.
        skip_target : bool, default False
            Whether targets stay as they are.
        """
        statistics = (
            input_lower_quantile_values,
            input_upper_quantile_values,
            target_lower_quantile_values,
            target_upper_quantile_values,
        )
        return cls._of("quantile", statistics, skip_target)

    @classmethod
    def none(cls) -> Normalization:
        """Leave values as they are."""
        return cls("none", None)

    @classmethod
    def from_careamics(cls, config: Any) -> Normalization:
        """Take the numbers of one of careamics' normalisation configs.

        Parameters
        ----------
        config : MeanStdConfig, MinMaxConfig, QuantileConfig or NoNormConfig
            One whose statistics are known (`resolve_normalization_config` computes them).

        Raises
        ------
        TypeError, ValueError
            `config` is none of these, or its statistics are not known yet.
        """
        kind = getattr(config, "name", None)
        if kind not in KINDS:
            raise TypeError(
                "config must be one of careamics' MeanStdConfig, MinMaxConfig, QuantileConfig and "
                f"NoNormConfig, found {shorten(config)}"
            )
        if kind == "none":
            return cls.none()
        skip_target = config.skip_target
        # careamics ignores the target's statistics then
        parts = ("input",) if skip_target else ("input", "target")
        fields = [f"{part}_{name}" for part in parts for name in NAMES[kind]]
        found = [getattr(config, field) for field in fields]
        if found[0] is None or found[1] is None:
            raise ValueError(
                f"config has no {fields[0]} or no {fields[1]}: compute them first, with careamics' "
                "resolve_normalization_config or with compute_normalization"
            )
        return cls._of(kind, [*found, None, None][:4], skip_target)

    @classmethod
    def _of(cls, kind: str, statistics: Sequence[Any], skip_target: bool) -> Normalization:
        pairs: list[Any] = []
        for part, pair in (("input", statistics[:2]), ("target", statistics[2:])):
            missing = [value is None for value in pair]
            if any(missing) and not all(missing):
                first, second = (f"{part}_{name}" for name in NAMES[kind])
                raise ValueError(f"{first} and {second} must be given together, one is None")
            pairs.append(None if all(missing) else pair)
        return cls(kind, pairs[0], pairs[1], skip_target)

    @cached_property
    def input_center(self) -> NDArray[np.float64]:
        """What becomes 0 of each input channel, (C,), or of all, (1,)."""
        return self._affine(self.input_statistics)[0]

    @cached_property
    def input_scale(self) -> NDArray[np.float32]:
        """Factor of each input channel, (C,), or of all, (1,)."""
        return self._affine(self.input_statistics)[1]

    @cached_property
    def input_offset(self) -> NDArray[np.float32]:
        """What 0 becomes in each input channel, (C,), or in all, (1,)."""
        return self._affine(self.input_statistics)[2]

    @cached_property
    def target_center(self) -> NDArray[np.float64] | None:
        """What becomes 0 of target channels, (C,) or (1,); None: targets stay as they are."""
        return None if self.target_statistics is None else self._affine(self.target_statistics)[0]

    @cached_property
    def target_scale(self) -> NDArray[np.float32] | None:
        """Factor of each target channel, (C,), or of all, (1,); None: targets stay as they are."""
        return None if self.target_statistics is None else self._affine(self.target_statistics)[1]

    @cached_property
    def target_offset(self) -> NDArray[np.float32] | None:
        """What 0 becomes in target channels, (C,) or (1,); None: targets stay as they are."""
        return None if self.target_statistics is None else self._affine(self.target_statistics)[2]

    def denormalize(self, prediction: Any) -> Any:
        """Take predictions back to the values of the images.

        With the statistics of the target, or of the input where the target has none, as in
        self-supervised training. Under `skip_target` predictions are returned as they are.

        Parameters
        ----------
        prediction : array or tensor, (B, C, (Z), Y, X)
            Of NumPy, CuPy or torch.

        Returns
        -------
        array or tensor of float32, (B, C, (Z), Y, X)
            Of the same library and device. Like careamics, without the 1e-8 of ranges. The center
            is added last, so that values are within float32's rounding of the exact ones.

        Raises
        ------
        TypeError, ValueError
            `prediction` is no array or tensor, or has other axes or channels.
        """
        if not hasattr(prediction, "shape"):
            raise TypeError(
                "prediction must be an array or tensor, "
                f"found {shorten(prediction)} ({type(prediction).__name__})"
            )
        shape = tuple(prediction.shape)
        if len(shape) not in (4, 5):
            raise ValueError(f"prediction must be BCYX or BCZYX, found the shape {shape}")
        if self.skip_target:
            return prediction
        # only torch's tensors have such a method
        if hasattr(prediction, "float"):
            values = prediction.float()
        else:
            values = prediction.astype(np.float32, copy=False)
        inverse = self.inverse(shape[1])
        if inverse is None:
            return values
        # channel by channel, since plain numbers go with the arrays of any library
        result = values + 0
        columns = zip(*(numbers.tolist() for numbers in inverse), strict=True)
        for c, (scale, rest, center) in enumerate(columns):
            result[:, c] = values[:, c] * scale + rest + center
        return result

    def inverse(self, n_channels: int) -> Inverse | None:
        """Return what `denormalize` does to a prediction's channels.

        Parameters
        ----------
        n_channels : int
            Channels of the prediction.

        Returns
        -------
        Inverse or None
            Factor and summands of each channel; None where predictions stay as they are.

        Raises
        ------
        ValueError
            Where there are statistics of another number of channels.
        """
        statistics = self.target_statistics or self.input_statistics
        if self.skip_target or statistics is None:
            return None
        low, width = self._low_and_width(statistics)
        if len(low) not in (1, n_channels):
            raise ValueError(
                Message(
                    f"prediction must have {len(low)} channels, as many as ",
                    argument("normalization"),
                    f" has statistics, found {n_channels}",
                )
            )
        factor = width + _STD_EPS if self.kind == "mean_std" else width
        center = low.astype(np.float32)
        parts = (factor, low - center, center)
        return Inverse(*(np.broadcast_to(v.astype(np.float32), (n_channels,)) for v in parts))

    def _low_and_width(
        self, statistics: Statistics
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return what becomes 0, and how far from there what becomes 1 is."""
        first, second = (np.array(numbers) for numbers in statistics)
        return first, second if self.kind == "mean_std" else second - first

    def _affine(
        self, statistics: Statistics | None
    ) -> tuple[NDArray[np.float64], NDArray[np.float32], NDArray[np.float32]]:
        """Return center, scale and offset."""
        low, width = np.zeros(1), np.ones(1)
        if statistics is not None:
            low, width = self._low_and_width(statistics)
            width = width + (_STD_EPS if self.kind == "mean_std" else _RANGE_EPS)
        return (
            _fixed(low),
            _fixed((1 / width).astype(np.float32)),
            _fixed((-low / width).astype(np.float32)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain numbers, strings, lists and dicts, for JSON.

        Returns
        -------
        dict
            What `from_dict` takes.
        """
        return {
            "format": _FORMAT,
            "version": _VERSION,
            "kind": self.kind,
            "input": self._named(self.input_statistics),
            "target": self._named(self.target_statistics),
            "skip_target": self.skip_target,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Normalization:
        """Take what `to_dict` returned.

        Parameters
        ----------
        content : dict
            With the keys format, version, kind, input, target and skip_target.

        Raises
        ------
        TypeError, ValueError
            `content` is nothing that `to_dict` returned.
        """
        found = mapping("content", content, ["format", "version"])
        if (found["format"], found["version"]) != (_FORMAT, _VERSION):
            raise ValueError(
                f"content must have the format {_FORMAT!r} and the version {_VERSION}, found "
                f"{shorten(found['format'])} and {shorten(found['version'])}"
            )
        mapping("content", found, ["kind", "input", "target", "skip_target"])
        kind = choice("content['kind']", found["kind"], KINDS)
        pairs: list[Any] = []
        for part in ("input", "target"):
            numbers = found[part]
            if numbers is not None:
                names = NAMES.get(kind, ())
                numbers = mapping(f"content[{part!r}]", numbers, names)
                numbers = [numbers[name] for name in names]
            pairs.append(numbers)
        return cls(kind, pairs[0], pairs[1], found["skip_target"])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a JSON file that holds every number exactly, whole or not at all.

        Parameters
        ----------
        path : str or path-like
            File to write; one that is there is replaced.
        """
        target = Path(path)
        # beside it, since files are only renamed in one go within a file system
        written = target.with_name(f".{target.name}.{uuid4().hex}")
        try:
            written.write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")
            written.replace(target)
        finally:
            written.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Normalization:
        """Read a file that `save` wrote.

        Parameters
        ----------
        path : str or path-like
            File to read.

        Raises
        ------
        OSError
            Where it cannot be read.
        ValueError
            Where it holds anything else; names the file.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{os.fspath(path)} holds no normalization, as Normalization.save writes it: "
                f"{error}"
            ) from error

    def __repr__(self) -> str:
        arguments = [
            f"{part}_{name}={list(numbers)}"
            for part, statistics in self._statistics().items()
            for name, numbers in (self._named(statistics) or {}).items()
        ]
        if self.skip_target:
            arguments.append("skip_target=True")
        return f"Normalization.{self.kind}({', '.join(arguments)})"

    def _statistics(self) -> dict[str, Statistics | None]:
        return {"input": self.input_statistics, "target": self.target_statistics}

    def _named(self, statistics: Statistics | None) -> dict[str, list[float]] | None:
        if statistics is None:
            return None
        return dict(zip(NAMES[self.kind], map(list, statistics), strict=True))


def _fixed(values: NDArray[_Float]) -> NDArray[_Float]:
    """Return values that nobody can change."""
    values.setflags(write=False)
    return values


def _checked_statistics(kind: str, part: str, statistics: object) -> Statistics | None:
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
        # NaN fails it too
        if not abs(float(number)) <= _LARGEST:
            raise ValueError(wanted)
    return tuple(float(number) for number in listed)
