"""Batches of an epoch, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from gpu_patch.augmentation import Augmentation
from gpu_patch.checks import choice, instance, probability, whole_number
from gpu_patch.constructors import PatchConstr
from gpu_patch.constructors.base import PlannedConstr
from gpu_patch.constructors.protocol import checked_constructor
from gpu_patch.constructors.target_dtype import target_option
from gpu_patch.draws import checked_seed
from gpu_patch.epilogue import checked_normalization
from gpu_patch.feed import loader_state
from gpu_patch.feed.epochs import EpochRun, EpochSettings
from gpu_patch.feed.order import Division
from gpu_patch.feed.ranks import NotGiven, warn_of_ranks
from gpu_patch.feed.sorting import ORDERS, Sorting
from gpu_patch.specs import PatchBatch

_PREFETCH = 2


class BatchLoader:
    """Iterates over the batches of an epoch; each iteration is the next epoch.

    What a batch holds is a function of the constructor's seed, this loader's seed, the epoch and
    the position in it: the same in any process, for any number of ranks, with or without prefetch,
    and after `load_state_dict`.

    Parameters
    ----------
    constructor : PatchConstr
        Makes the batches.
    batch_size : int
        Patches per batch and rank. Where fewer patches than ranks are left at the end, they are
        added to the last batches, one each.
    shuffle : bool, default True
        Whether each epoch has a random order; else it is that of the indices.
    order : {"shuffle", "by_image", "blocks", "sweep"}, default "shuffle"
        How random the order is. "by_image" visits one image stack after the other, in random
        order. "blocks" cuts images into boxes, visits those in random order, and takes patches at
        random from the last few: for images that are not resident as a whole, of which it needs
        little more than that at a time. The order is that of all ranks together, which so work
        in the same boxes, and the same for any number of ranks.
        Strategies that draw from a whole sample, `RandomPatching` first, have no smaller boxes;
        `StratifiedPatching` has. "sweep" is for images that are read by page: the
        images are cut into up to eight strips, all of them are swept at once, and a batch mixes
        what is in memory, which each page enters once an epoch or little more. With fewer than
        four strips, for want of memory, it warns. Ranks of torch's process group all sweep as the
        one does that has least memory; without a group give all the same memory budget. Resident
        images are shuffled instead.
    window : float, default 0.125
        What "blocks" takes patches from at a time, as a part of the images; in (0, 1]. At most
        half of what the memory budget is of them.
    seed : int or None, default 0
        Key of the orders, 0 ≤ seed < 2^64; None takes a fresh one, kept in `seed`.
    drop_last : bool, default False
        Whether to leave out what does not fill a step of all ranks.
    rank, world_size : int, default 0 and 1
        This process, and how many there are. Together they see every patch of an epoch once.
        Neither given where ``WORLD_SIZE`` or torch's process group tells of several processes is
        worth a warning: all of them see the same patches. Where that is wanted, give 0 and 1.
    prefetch : int or None, default None
        Batches that are made ahead; None is 2 where the images are on a CUDA device, else 0. Pages
        of coming batches are read ahead besides. Where draws are by counter, the first batches of
        the next epoch are made while one ends, and thrown away where something that they depend on
        is changed then: a setting, the constructor's or the loader's, or what a strategy excludes.
        Change pixels between epochs with 0 alone. On CUDA batches are made on a stream of their
        own, and whatever stream is current when one is taken waits for it, on the device. On the
        CPU a thread makes them, which takes turns with Python's others.
    normalization : Normalization or None, default None
        Applied to input and target.
    augmentation : Augmentation or None, default None
        Applied to input and target alike.
    dtype : {float32, float16}, default float32
        Of input and target.
    target_dtype : "native", integer type, bool or None, default None
        Of targets that are labels: these are copied exactly, and never normalised; see
        `PatchConstr.construct_batch`. None is `dtype`.

    Raises
    ------
    ValueError
        For values out of range, fewer patches than ranks, no batch at all for `drop_last`, and
        several ranks where the constructor has draws that are not by counter: each rank would
        draw something else.

    Examples
    --------
    >>> import numpy as np
    >>> import gpu_patch
    >>> images = gpu_patch.PatchExtractor(
    ...     [gpu_patch.ImageStack.from_array(np.zeros((64, 96), np.uint8), "YX", device="cpu")]
    ... )
    >>> strategy = gpu_patch.SequentialPatching(images.shapes, (16, 16))
    >>> loader = BatchLoader(gpu_patch.BasicPatchConstr(strategy, images), batch_size=10)
    >>> [batch.input.shape for batch in loader]
    [(10, 1, 16, 16), (10, 1, 16, 16), (4, 1, 16, 16)]
    >>> loader.epoch
    1
    """

    def __init__(
        self,
        constructor: PatchConstr,
        batch_size: int,
        *,
        shuffle: bool = True,
        order: str = "shuffle",
        window: float = 0.125,
        seed: int | None = 0,
        drop_last: bool = False,
        rank: int = NotGiven(0),
        world_size: int = NotGiven(1),
        prefetch: int | None = None,
        normalization: Any = None,
        augmentation: Any = None,
        dtype: DTypeLike = np.float32,
        target_dtype: DTypeLike | None = None,
    ) -> None:
        self.constructor = checked_constructor("constructor", constructor)
        self.batch_size = whole_number("batch_size", batch_size, minimum=1)
        self.shuffle = bool(instance("shuffle", shuffle, bool, "True or False"))
        self.order = choice("order", order, ORDERS)
        if order != "shuffle" and not shuffle:
            raise ValueError(f"order is {order!r}, which is random, but shuffle is False")
        self.window = probability("window", window)
        if not self.window:
            raise ValueError("window must be more than 0: nothing would be taken from it")
        self.drop_last = bool(instance("drop_last", drop_last, bool, "True or False"))
        warn_of_ranks(rank, world_size, stacklevel=3)
        self.world_size = whole_number("world_size", world_size, minimum=1)
        if seed is None and self.world_size > 1:
            raise ValueError(
                "seed must be a number where world_size > 1: each rank would take another one"
            )
        self.seed = checked_seed(seed)
        self.rank = whole_number("rank", rank, minimum=0, maximum=self.world_size - 1)
        if normalization is not None:
            checked_normalization(normalization)
        if augmentation is not None:
            instance("augmentation", augmentation, Augmentation, "an Augmentation or None")
        self.normalization, self.augmentation, self.dtype = normalization, augmentation, dtype
        self._of_target = target_option(self.constructor, target_dtype)
        self.device = constructor.device
        self._rehearse = (
            isinstance(constructor, PlannedConstr)
            and not constructor.sampling.is_chunked
            and constructor.draws_by_counter
        )
        ahead = 0 if self.device == "cpu" else _PREFETCH
        self.prefetch = ahead if prefetch is None else whole_number("prefetch", prefetch, minimum=0)
        self._epoch, self._first, self._step = 0, 0, 0
        self._resumed = False
        self._order_of_epoch: dict[str, Any] | None = None
        self._run: EpochRun | None = None  # that has begun the next epoch
        self._sorting = Sorting(self.constructor, self.order, self.window, shuffle=self.shuffle)
        self._sorting.warn_of_few_strips(stacklevel=2)
        if self.world_size > 1 and not constructor.draws_by_counter:
            raise ValueError(
                f"world_size is {self.world_size}, but the constructor has a strategy whose draws "
                "are not by counter, so that ranks would disagree: use one of gpu_patch's "
                "(of careamics': from_careamics(..., strategies='own'))"
            )
        self._check_enough(constructor.n_patches)
        self._check_not_empty()

    def __repr__(self) -> str:
        return (
            f"BatchLoader({self.constructor!r}, batch_size={self.batch_size}, epoch={self.epoch})"
        )

    @property
    def epoch(self) -> int:
        """The epoch that the next batch is of."""
        return (self._epoch + self._is_done()) % 2**32

    def set_epoch(self, epoch: int) -> None:
        """Go to the beginning of an epoch.

        Parameters
        ----------
        epoch : int
            0 ≤ epoch < 2^32. Without this, each iteration is the next epoch.

        Raises
        ------
        TypeError, ValueError
            `epoch` is anything else.
        """
        self._epoch = whole_number("epoch", epoch, minimum=0, maximum=2**32 - 1)
        self._first, self._step, self._resumed = 0, 0, False

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch, the same on every rank."""
        return self._division(0).n_steps

    def state_dict(self) -> dict[str, Any]:
        """Return where the loader is: behind the batch that was taken last.

        Returns
        -------
        dict
            Small, for JSON too: the place in the epoch, the seeds, and what else decides the order
            of patches. The same on every rank, and good for any batch size and any number of ranks
            that does not exceed the patches left.
        """
        division = self._division(self._first)
        # an epoch keeps the order that it began with
        if self._order_of_epoch is None or not self._step:
            self._order_of_epoch = self._sorting.state()
        return {
            "version": loader_state.VERSION,
            "seed": self.seed,
            "constructor_seed": getattr(self.constructor, "seed", 0),
            "epoch": self.epoch,
            "position": 0 if self._is_done() else division.position(self._step),
            "n_patches": division.stop,
            **self._order_of_epoch,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to where a loader was: the next iteration gives what is left of that epoch.

        Parameters
        ----------
        state : dict
            As `state_dict` returned it. The loader takes its seed from there. Batch size,
            `drop_last` and number of ranks may be others.

        Raises
        ------
        TypeError, ValueError
            Where the state is of other patches or of another order: `shuffle`, `order`, `window`,
            the seed of the constructor, the strategies with their seeds, sizes, exclusions and
            probabilities. Names what differs.

        Warns
        -----
        UserWarning
            For a state of version 1, which does not tell the order.
        """
        n_patches = self.constructor.n_patches
        own_seed = getattr(self.constructor, "seed", 0)
        own = {"n_patches": n_patches, **self._sorting.state()}
        found = loader_state.checked_state(state, own, own_seed)
        seed = checked_seed(found["seed"])
        epoch = whole_number("state['epoch']", found["epoch"], minimum=0, maximum=2**32 - 1)
        position = whole_number(
            "state['position']", found["position"], minimum=0, maximum=n_patches
        )
        self._check_enough(n_patches - position)
        self.seed, self._epoch, self._first, self._step = seed, epoch, position, 0
        self._resumed = True

    def __iter__(self) -> Iterator[PatchBatch]:
        """Yield the batches of this epoch, or what is left of it after `load_state_dict`.

        An iteration that was left early begins its epoch anew.
        """
        if not self._resumed:
            self._epoch, self._first = self.epoch, 0
        if self._first == 0:
            self._check_not_empty()  # the strategy may have fewer patches now
        self._resumed, self._step, self._order_of_epoch = False, 0, None
        self._sorting.agree(self.world_size)
        epoch, settings = self._epoch, self._settings()
        run, self._run = self._run, None
        if run is None or not run.goes_on_with(settings):
            if run is not None:
                run.give_up()
            run = EpochRun(settings, rehearse=self._rehearse)
            self._rehearse = False  # once
        try:
            while not run.is_over:
                # no variable may hold a batch here, or its memory would outlive its use
                yield self._take(run)
            self._epoch, self._first, self._step = (epoch + 1) % 2**32, 0, 0
        finally:
            if run.is_over and settings.spans:
                run.rest()
                self._run = run
            else:
                run.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_run": None}  # what is made ahead is of this process

    def _settings(self) -> EpochSettings:
        return EpochSettings(
            self.constructor,
            self._sorting,
            self._division(self._first),
            self.rank,
            self.seed,
            self._epoch,
            self.prefetch,
            {
                "dtype": self.dtype,
                "normalization": self.normalization,
                "augmentation": self.augmentation,
                **self._of_target,
            },
        )

    def _is_done(self) -> bool:
        """Whether the last batch is taken: who counts batches does not ask for one more."""
        return 0 < self._step == self._division(self._first).n_steps

    def _take(self, run: EpochRun) -> PatchBatch:
        batch = run.take()
        self._step += 1
        return batch

    def _division(self, first: int) -> Division:
        n_patches = self.constructor.n_patches
        return Division(first, n_patches, self.batch_size, self.world_size, self.drop_last)

    def _check_enough(self, n_patches: int) -> None:
        if 0 < n_patches < self.world_size and not self.drop_last:
            raise ValueError(
                f"{n_patches} patches are too few for world_size = {self.world_size}: every rank "
                "needs one, or drop_last=True"
            )

    def _check_not_empty(self) -> None:
        if self.drop_last and not len(self):
            raise ValueError(
                f"drop_last is True, but {self.constructor.n_patches} patches are less than one "
                f"batch of {self.batch_size}"
                + f" on each of {self.world_size} ranks" * (self.world_size > 1)
                + ": nothing is left. Give a smaller batch_size, or drop_last=False"
            )
