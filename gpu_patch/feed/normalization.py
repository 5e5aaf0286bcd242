"""What is done to pixel values before a network sees them, and how predictions are taken back.

The definitions are those of careamics 0.3.5 (`careamics.dataset.normalization`): "mean_std" is
``(value − mean) / (std + 1e-6)``, "min_max" and "quantile" are
``(value − low) / (high − low + 1e-8)``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpu_patch.checks import choice, instance
from gpu_patch.epilogue import FixedNormalization
from gpu_patch.feed.affine import Affine, Inverse, affine, channels_of, inverse_of, with_inverse
from gpu_patch.feed.kinds import (
    KINDS,
    NAMES,
    Statistics,
    careamics_statistics,
    checked_statistics,
    paired,
)
from gpu_patch.feed.normalization_file import HEADER, from_content, read, write


@dataclass(frozen=True, repr=False)
class Normalization(FixedNormalization):
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
            checked[name] = checked_statistics(self.kind, part, getattr(self, name))
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
        kind, statistics = careamics_statistics(config)
        return cls._of(kind, statistics, kind != "none" and config.skip_target)

    @classmethod
    def _of(cls, kind: str, statistics: Sequence[Any], skip_target: bool) -> Normalization:
        of_input, of_target = paired(kind, statistics)
        return cls(kind, of_input, of_target, skip_target)

    @property
    def input_center(self) -> NDArray[np.float64]:
        """What becomes 0 of each input channel, (C,), or of all, (1,)."""
        return self._of_input.center

    @property
    def input_scale(self) -> NDArray[np.float32]:
        """Factor of each input channel, (C,), or of all, (1,)."""
        return self._of_input.scale

    @property
    def input_offset(self) -> NDArray[np.float32]:
        """What 0 becomes in each input channel, (C,), or in all, (1,)."""
        return self._of_input.offset

    @property
    def target_center(self) -> NDArray[np.float64] | None:
        """What becomes 0 of target channels, (C,) or (1,); None: targets stay as they are."""
        return self._of_target and self._of_target.center

    @property
    def target_scale(self) -> NDArray[np.float32] | None:
        """Factor of each target channel, (C,), or of all, (1,); None: targets stay as they are."""
        return self._of_target and self._of_target.scale

    @property
    def target_offset(self) -> NDArray[np.float32] | None:
        """What 0 becomes in target channels, (C,) or (1,); None: targets stay as they are."""
        return self._of_target and self._of_target.offset

    @cached_property
    def _of_input(self) -> Affine:
        return affine(self.kind, self.input_statistics)

    @cached_property
    def _of_target(self) -> Affine | None:
        return self.target_statistics and affine(self.kind, self.target_statistics)

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
        n_channels = channels_of(prediction)
        if self.skip_target:
            return prediction
        return with_inverse(prediction, self.inverse(n_channels))

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
        return inverse_of(self.kind, statistics, n_channels)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain numbers, strings, lists and dicts, for JSON.

        Returns
        -------
        dict
            What `from_dict` takes.
        """
        return {
            **HEADER,
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
        return cls(*from_content(content))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a JSON file that holds every number exactly, whole or not at all.

        Parameters
        ----------
        path : str or path-like
            File to write; one that is there is replaced.
        """
        write(path, self.to_dict())

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
            return cls.from_dict(read(path))
        except (ValueError, TypeError) as error:
            raise ValueError(
                f"{os.fspath(path)} holds no normalization, as Normalization.save writes it: "
                f"{error}"
            ) from error

    def __repr__(self) -> str:
        pairs = (("input", self.input_statistics), ("target", self.target_statistics))
        arguments = [
            f"{part}_{name}={list(numbers)}"
            for part, statistics in pairs
            for name, numbers in (self._named(statistics) or {}).items()
        ]
        if self.skip_target:
            arguments.append("skip_target=True")
        return f"Normalization.{self.kind}({', '.join(arguments)})"

    def _named(self, statistics: Statistics | None) -> dict[str, list[float]] | None:
        if statistics is None:
            return None
        return dict(zip(NAMES[self.kind], map(list, statistics), strict=True))
