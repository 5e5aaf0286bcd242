"""What a patch constructor is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import DTypeLike, NDArray

from gpu_patch.augmentation import Augmentation
from gpu_patch.checks import instance
from gpu_patch.epilogue import AnyNormalization
from gpu_patch.specs import ImageMetadata, PatchBatch, PatchSpecs


@runtime_checkable
class PatchConstr(Protocol):
    """Makes the input and the target of a network for an index, or for many at once.

    The members of careamics 0.3.5's `PatchConstr`, and `construct_batch`, are abstract: a subclass
    that forgets one cannot be made.
    """

    @property
    @abstractmethod
    def n_patches(self) -> int:
        """Number of patches of an epoch."""
        raise NotImplementedError

    @property
    @abstractmethod
    def input_shapes(self) -> Sequence[Sequence[int]]:
        """Shapes SC(Z)YX of the input images."""
        raise NotImplementedError

    @property
    @abstractmethod
    def target_shapes(self) -> Sequence[Sequence[int]] | None:
        """Shapes SC(Z)YX of the target images, None where there are none."""
        raise NotImplementedError

    @abstractmethod
    def construct_patch(
        self, index: int, *, target_dtype: DTypeLike | None = None
    ) -> tuple[NDArray[Any], NDArray[Any] | None, PatchSpecs]:
        """Make one patch, with draws in the order of careamics 0.3.5.

        Parameters
        ----------
        index : int
            In −n_patches … n_patches − 1; negative values count from the end.
        target_dtype : "native", integer type, bool or None, default None
            As in `construct_batch`.

        Returns
        -------
        input_patch : array of float32
            L(Z)YX, L being the scales from the native one outwards; C(Z)YX for
            `BasicPatchConstr`.
        target_patch : array of float32, or of `target_dtype`, or None
            C(Z)YX, or None where there are no targets.
        patch_spec : PatchSpecs
            Where the patch comes from.

        Raises
        ------
        IndexError, TypeError
            `index` is none of the patches', or no whole number.
        """
        raise NotImplementedError

    @abstractmethod
    def construct_batch(
        self,
        indices: Sequence[int],
        *,
        epoch: int = 0,
        dtype: DTypeLike = np.float32,
        normalization: AnyNormalization | None = None,
        augmentation: Augmentation | None = None,
        target_dtype: DTypeLike | None = None,
    ) -> PatchBatch:
        """Make a batch of patches at once, with draws by counter.

        Each patch is a function of the constructor's seed, `epoch` and its index alone: the same
        in any batch, order and process.

        Parameters
        ----------
        indices : sequence of int
            At least one, each in −n_patches … n_patches − 1.
        epoch : int, default 0
            0 ≤ epoch < 2^32; another epoch draws anew.
        dtype : {float32, float16}, default float32
            Of input and target. Values beyond 65504 become infinite in float16.
        normalization : AnyNormalization or None, default None
            Applied to input and target in float32, before anything is rounded to float16. A
            `Normalization`, or what has `input_scale`, `input_center`, `target_scale` and
            `target_center` as it has: values become (value − center) · scale, with the center
            subtracted first. With `input_offset` and `target_offset` instead of centers, they
            become value · scale + offset.
        augmentation : Augmentation or None, default None
            Flips and turns input, at all scales, and target alike. Specs stay those of the images.
        target_dtype : "native", integer type, bool or None, default None
            None makes targets as inputs are made, of `dtype` and normalised. For targets that are
            labels: "native" gives them the type that the images have in memory, of several types
            the smallest that holds all; an integer type, such as int64, gives them that, where it
            holds all values. They are then copied exactly, turned with the input and never
            normalised. Where there is no target it makes no difference.

        Returns
        -------
        PatchBatch
            (input, target, specs).

        Raises
        ------
        IndexError, TypeError, ValueError
            An argument is wrong; the message names it. So is `target_dtype` where targets are of
            a floating type or parts of a mixture, and None where they are labels of 32 or 64 bits.
        MemoryError
            The device has no room for the batch, or a memory budget none for one patch's chunks.
        """
        raise NotImplementedError

    @property
    def device(self) -> str:
        """Where the images live and batches are made: "cpu" or "cuda:N"."""
        return "cpu"

    @property
    def draws_by_counter(self) -> bool:
        """Whether a batch is the same in any process; not where a foreign strategy draws."""
        return False

    @abstractmethod
    def get_patch_indices(self, data_idx: int) -> Sequence[int]:
        """Return the indices whose patches (of the principal channel) lie in one image stack.

        Parameters
        ----------
        data_idx : int
            Index of the image stack.

        Returns
        -------
        sequence of int
            In ascending order.

        Raises
        ------
        IndexError, TypeError
            There is no such image stack.
        """
        raise NotImplementedError

    @abstractmethod
    def get_principal_input(self, input_patch: NDArray[Any]) -> NDArray[Any]:
        """Return the part of an input that normalisation statistics are made from.

        Parameters
        ----------
        input_patch : array
            The input of a patch, or of a batch.

        Returns
        -------
        array
            C(Z)YX, with B in front for a batch: the native scale without context, or the whole
            input for `BasicPatchConstr`.

        Raises
        ------
        TypeError, ValueError
            `input_patch` is no input of this constructor.
        """
        raise NotImplementedError

    @abstractmethod
    def get_input_image_metadata(self, patch_spec: PatchSpecs) -> ImageMetadata:
        """Return where the input image of a patch comes from.

        Parameters
        ----------
        patch_spec : PatchSpecs
            As `construct_patch` returned it.

        Returns
        -------
        ImageMetadata
            A fresh dict.
        """
        raise NotImplementedError

    @abstractmethod
    def get_target_image_metadata(self, patch_spec: PatchSpecs) -> ImageMetadata | None:
        """Return where the target image of a patch comes from, None where there is none.

        Parameters
        ----------
        patch_spec : PatchSpecs
            As `construct_patch` returned it.

        Returns
        -------
        ImageMetadata or None
            A fresh dict.
        """
        raise NotImplementedError


def checked_constructor(name: str, constructor: object) -> PatchConstr:
    """Return `constructor` where it is one."""
    checked: PatchConstr = instance(
        name, constructor, PatchConstr, "one of gpu_patch's constructors"
    )
    return checked
