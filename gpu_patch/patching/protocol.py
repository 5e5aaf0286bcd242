"""What a patching strategy is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol

from gpu_patch.specs import PatchSpecs


class Patching(Protocol):
    """Says how many patches there are and where each lies.

    Any object with these members can be given to a constructor, one from CAREamics or of your
    own included. Strategies of this package are planned a whole batch at a time; others are
    called index by index.
    """

    @property
    @abstractmethod
    def n_patches(self) -> int:
        """Number of patches of an epoch."""
        raise NotImplementedError

    @abstractmethod
    def get_patch_spec(self, index: int) -> PatchSpecs:
        """Return where patch `index` lies.

        Parameters
        ----------
        index : int
            In −n_patches … n_patches − 1; negative values count from the end.

        Returns
        -------
        PatchSpecs
            A fresh dict of Python ints and tuples.

        Raises
        ------
        IndexError, TypeError
            `index` is none of the patches', or no whole number.
        """
        raise NotImplementedError

    @abstractmethod
    def get_patch_indices(self, data_idx: int) -> Sequence[int]:
        """Return the indices whose patches lie in one image stack.

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
