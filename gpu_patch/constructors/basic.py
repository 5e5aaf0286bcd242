"""Plain patches, for denoising and restoration."""

from __future__ import annotations

from collections.abc import Sequence

from gpu_patch.constructors.aligned import AlignedConstr
from gpu_patch.images import PatchExtractor
from gpu_patch.patching import Patching


class BasicPatchConstr(AlignedConstr):
    """Patches of the input images and, where there are any, the same places of the targets.

    For N2V, CARE and the like, in training and in prediction. Patches are zero where they leave
    the image.

    Parameters
    ----------
    patching_strategy : Patching
        Says where patches lie.
    input_extractor : PatchExtractor
        Input images.
    target_extractor : PatchExtractor or None, default None
        Target images of the same samples and spatial shapes, with any number of channels. Those of
        folders and patterns are paired by the names of their files, others by position. None for
        self-supervised training and for prediction.
    channels : sequence of int or None, default None
        Channels of the input, in the order wanted; None is all. Targets have all channels.
    seed : int or None, default None
        Seed of the batches' draws; None takes a fresh one.

    Raises
    ------
    TypeError, ValueError
        An argument is wrong, or they do not go together. The message names it, what was found and
        what would be right.

    Examples
    --------
    >>> import numpy as np
    >>> from gpu_patch import ImageStack, PatchExtractor, RandomPatching
    >>> images = PatchExtractor([ImageStack.from_array(np.ones((200, 300), np.uint8), "YX")])
    >>> constructor = BasicPatchConstr(RandomPatching(images.shapes, (64, 64)), images, seed=1)
    >>> constructor.construct_batch(range(20)).input.shape
    (20, 1, 64, 64)
    """

    def __init__(
        self,
        patching_strategy: Patching,
        input_extractor: PatchExtractor,
        target_extractor: PatchExtractor | None = None,
        channels: Sequence[int] | None = None,
        *,
        seed: int | None = None,
    ) -> None:
        super().__init__(patching_strategy, input_extractor, target_extractor, channels, seed)
        self.channels = channels
