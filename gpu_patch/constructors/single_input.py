"""MicroSplit on real input images: mode III, and prediction."""

from __future__ import annotations

from gpu_patch.constructors.aligned import AlignedConstr
from gpu_patch.constructors.checks import checked_context, checked_extractor
from gpu_patch.geometry import PaddingMode
from gpu_patch.images import PatchExtractor
from gpu_patch.patching import Patching


class PairedInputTargetMsPatchConstr(AlignedConstr):
    """Mode III: real mixed input images, with the separated structures as targets.

    Input: the input image at every scale, L(Z)YX. Target: the plain patch of all target channels,
    C(Z)YX, zero where it leaves the image.

    Parameters
    ----------
    patching_strategy : Patching
        Says where patches lie.
    input_extractor : PatchExtractor
        Input images, single-channel.
    target_extractor : PatchExtractor
        Target images of the same samples and spatial shapes. Those of folders and patterns are
        paired by the names of their files, others by position.
    multiscale_count : int
        Number of scales L, at least 1: the field of view grows to 2^(L−1) times the patch.
    padding_mode : {"reflect", "wrap", "periodic"}
        What the context holds beyond the image, see `MultiChannelTargetMsPatchConstr`.
    seed : int or None, default None
        Seed of the batches' draws; None takes a fresh one.

    Raises
    ------
    TypeError, ValueError
        An argument is wrong, or they do not go together. The message names it, what was found and
        what would be right.
    """

    def __init__(
        self,
        patching_strategy: Patching,
        input_extractor: PatchExtractor,
        target_extractor: PatchExtractor,
        multiscale_count: int,
        padding_mode: PaddingMode,
        *,
        seed: int | None = None,
    ) -> None:
        self.multiscale_count, self.padding_mode = checked_context(multiscale_count, padding_mode)
        super().__init__(
            patching_strategy,
            input_extractor,
            checked_extractor("target_extractor", target_extractor, labels=True),
            None,
            seed,
            self.multiscale_count,
            self.padding_mode,
        )


class PredMsPatchConstr(AlignedConstr):
    """Prediction: tiles of single-channel images with lateral context, and no targets.

    Parameters
    ----------
    patching_strategy : Patching
        Says where tiles lie, `TiledPatching` as a rule.
    input_extractor : PatchExtractor
        Input images, single-channel.
    multiscale_count : int
        Number of scales L, at least 1: the field of view grows to 2^(L−1) times the tile.
    padding_mode : {"reflect", "wrap", "periodic"}
        What the context holds beyond the image, see `MultiChannelTargetMsPatchConstr`.
    seed : int or None, default None
        Seed of the batches' draws, where the strategy draws at all.

    Raises
    ------
    TypeError, ValueError
        An argument is wrong, or they do not go together. The message names it, what was found and
        what would be right.
    """

    def __init__(
        self,
        patching_strategy: Patching,
        input_extractor: PatchExtractor,
        multiscale_count: int,
        padding_mode: PaddingMode,
        *,
        seed: int | None = None,
    ) -> None:
        self.multiscale_count, self.padding_mode = checked_context(multiscale_count, padding_mode)
        super().__init__(
            patching_strategy,
            input_extractor,
            None,
            None,
            seed,
            self.multiscale_count,
            self.padding_mode,
        )
