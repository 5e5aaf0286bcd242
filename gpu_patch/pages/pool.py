"""Slots for pages, and the table that says which page is in which slot.

The table changes under one lock, which nobody holds while waiting for pixels; what the system has
of them in memory is copied under it. A page is pinned from when its read begins until it has ended,
and while anything reads it; what is pinned does not leave. A read that does nothing until somebody
waits for it pins nothing meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition, local
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from gpu_patch.checks import Message, argument
from gpu_patch.chunks.image import ChunkedImage
from gpu_patch.pages.image import PagedImage, page_shapes
from gpu_patch.pages.memory import SlotMemory
from gpu_patch.pages.reading import Copying, PageReader, Reading
from gpu_patch.pages.traffic import PageTraffic

_ALIGNED = 8
"""Bytes that slots begin at multiples of."""
_MARGIN = 256
"""Bytes behind the last slot: kernels may read whole vectors."""
_SOON = 2
"""Steps ahead that are worth a page that is needed again."""
_A_MOMENT = 0.05
"""Seconds after which to look again at what nobody may tell of."""
UNNEEDED = 1 << 58
"""More steps than any page is needed in."""
UNPLANNED = 1 << 62
"""Step of the next use of a page of which none is known, less the step of its last one."""


@dataclass(eq=False, slots=True)
class _Begun:
    """A read of a page.

    Attributes
    ----------
    reading : Reading
        The read.
    is_second : bool
        Whether another one has failed before.
    is_pinned : bool
        Whether it has its slot pinned.
    """

    reading: Reading
    is_second: bool = False
    is_pinned: bool = False


class PagePool:
    """Keeps pages of images in slots; one page that is needed late makes room for another.

    Threads may share it.

    Parameters
    ----------
    images : sequence of ChunkedImage
        The images.
    budget : int
        Bytes that the slots may take.
    traffic : PageTraffic
        Told what goes through.
    memory : SlotMemory
        Where the slots are.

    Attributes
    ----------
    n_slots : int
        Number of slots.
    paged : dict of int to PagedImage
        The images, by their numbers.
    table, pins : array of int32
        See `PagedImage`.
    next_use : array of int64
        The step that needs the page of each slot next, in steps of `clock`.
    clock : int
        How often pages were held.
    """

    def __init__(
        self,
        images: Sequence[ChunkedImage],
        budget: int,
        traffic: PageTraffic,
        memory: SlotMemory,
    ) -> None:
        self.paged: dict[int, PagedImage] = {}
        base = 0
        for image, shape in zip(images, page_shapes(images, budget), strict=True):
            paged = self.paged[image.number] = PagedImage(image, shape, base)
            base += paged.n_pages
        self._sources = [ref(image) for image in images]
        self._images = list(self.paged.values())
        self._bases = np.array([image.base for image in self._images])
        largest = max(image.page_bytes for image in self._images)
        slot_bytes = -(-largest // _ALIGNED) * _ALIGNED
        self.n_slots = min(max(1, budget // slot_bytes), base)
        self._memory = memory
        slots = memory.allocate(self.n_slots, slot_bytes, _MARGIN)
        self.table = np.full(base, -1, np.int32)
        pins = np.zeros(self.n_slots + 1, np.int32)  # the last one is of no slot: of −1
        self.pins = pins[:-1]
        self.next_use = np.full(self.n_slots, UNPLANNED, np.int64)
        self.clock = 0
        for paged in self._images:
            paged.lie_in(slots, self.table, pins)
        self._page_of = np.full(self.n_slots, -1, np.int64)
        self._fresh = np.zeros(self.n_slots, bool)
        self._free = list(range(self.n_slots - 1, -1, -1))
        self._n_failed = 0  # slots whose page has failed while somebody had it pinned
        self._readings: dict[int, _Begun] = {}
        self._reader = PageReader()
        self._changed = Condition()
        self._own = local()
        self._traffic = traffic

    @property
    def held_here(self) -> bool:
        """Whether this thread holds pages, so that what it reads needs no others."""
        return getattr(self._own, "depth", 0) > 0

    @property
    def nbytes(self) -> int:
        """Bytes of the pages that are there."""
        return sum(map(self.bytes_of, self.paged))

    def bytes_of(self, number: int) -> int:
        """Return the bytes of an image's pages that are there, by the image's number."""
        image = self.paged[number]
        there = self.table[image.base : image.base + image.n_pages] >= 0
        return int(np.count_nonzero(there)) * image.page_bytes

    @contextmanager
    def hold(
        self, pages: NDArray[np.int64], next_use: NDArray[np.int64] | None = None
    ) -> Iterator[None]:
        """Keep pages for as long as the context lasts, and read those that are not there.

        Parameters
        ----------
        pages : array of int64
            Their numbers, each once.
        next_use : array of int64 or None, default None
            How many steps later each of them is needed again, where that is known.

        Raises
        ------
        MemoryError
            They are more than there are slots.
        Exception
            As the reader raised it the second time. Pages that could not be read are nowhere.
        """
        arrived = False
        begun, self._own.waited = time.perf_counter(), False
        while not arrived:
            slots, arrived = self._pin(pages)
            if arrived:
                break
            try:
                arrived = self._arrive(pages, slots)
            finally:
                if not arrived:
                    self._unpin(slots, None)
        self._own.depth = getattr(self._own, "depth", 0) + 1
        try:
            if self._own.waited:
                with self._changed:
                    self._traffic.waited(time.perf_counter() - begun)
            self._memory.publish(slots)
            yield
        finally:
            self._own.depth -= 1
            self._unpin(slots, next_use, read=True)

    def read_ahead(
        self, pages: NDArray[np.int64], steps: NDArray[np.int64], horizon: int
    ) -> NDArray[np.bool_]:
        """Begin to read pages, as far as only pages leave that are needed later.

        Parameters
        ----------
        pages : array of int64
            In the order of their use.
        steps : array of int64
            In how many steps each is needed.
        horizon : int
            Pages needed within so many steps do not leave. Those needed later leave for what the
            next steps need; for the others only pages leave that nobody needs, since of these
            there may be more by then.

        Returns
        -------
        array of bool
            Which of them are there or on their way.
        """
        with self._changed:
            self._settle_ended()
            there: NDArray[np.bool_] = self.table.take(pages) >= 0
            if there.all():
                return there
            n_arrived = 0  # of which copies to a device may be under way
            missing = pages[~there].tolist(), steps[~there].tolist()
            for page, step in zip(*missing, strict=True):
                if len(self._readings) + n_arrived >= self._memory.most_reading:
                    break
                if self.table[page] < 0:
                    slot = self._slot(self.clock + (horizon if step <= _SOON else UNNEEDED))
                    if slot < 0:
                        break
                    self._begin(page, slot, self.clock + step)
                    self._settle_arrived([page])
                    n_arrived += page not in self._readings
            return self.table[pages] >= 0

    def expect(self, pages: NDArray[np.int64], steps: NDArray[np.int64]) -> None:
        """Say in how many steps pages are needed, of which some may be there; each once.

        Those that somebody needs before stay for that.
        """
        with self._changed:
            slots = self.table[pages]
            there = slots >= 0
            then, known = self.clock + steps[there], self.next_use[slots[there]]
            sooner = (known >= self.clock) & (known < then)
            self.next_use[slots[there]] = np.where(sooner, known, then)

    def forget(self) -> None:
        """Take back what was said of coming uses: what was expected is not wanted any more."""
        with self._changed:
            planned = self.next_use < UNPLANNED // 2
            self.next_use[planned] = UNPLANNED - self.clock
            for page in list(self._readings):
                slot = int(self.table[page])
                if self.pins[slot] == 0:
                    self._leave(slot)
                    self._free.append(slot)

    def _pin(self, pages: NDArray[np.int64]) -> tuple[NDArray[np.int32], bool]:
        """Give all pages slots and pin them, all or none.

        Return the slots, and whether nothing is on its way to them.
        """
        if len(pages) > self.n_slots:
            raise MemoryError(self._too_few(len(pages)))
        while True:
            with self._changed:
                slots: NDArray[np.int32] = self.table.take(pages)
                missing = pages[slots < 0].tolist()
                self._own.waited = self._own.waited or bool(missing)
                claimed = self._claim(pages, missing)
                slots = self.table[pages] if missing else slots
                if claimed and (not missing or slots.min() >= 0):
                    self.pins[slots] += 1
                    self.clock += 1
                    n_fresh = int(np.count_nonzero(self._fresh.take(slots)))
                    if n_fresh:
                        self._fresh[slots] = False
                    self._traffic.asked(len(pages), n_fresh)
                    return slots, not self._readings
                if claimed:  # but one of them has failed meanwhile
                    continue
                pending = [each.reading for each in self._readings.values() if each.is_pinned]
                reading = next((each for each in pending if not each.done()), None)
                if reading is None:  # for another thread, that holds pages or is to end a read
                    self._changed.wait(_A_MOMENT if pending else None)
                    continue
            _ended(reading)

    def _claim(self, pages: NDArray[np.int64], missing: Sequence[int]) -> bool:
        """Give slots to the pages that have none, as far as possible; tell whether all have one."""
        if not missing:
            return True
        slots = self.table[pages]
        own = slots[slots >= 0].tolist()
        self.pins[own] += 1
        try:
            for page in missing:
                slot = self._slot(self.clock)
                if slot < 0:
                    slot = self._slot(-UNPLANNED)  # what is needed soon leaves before this fails
                if slot < 0:
                    return False
                self._begin(page, slot, self.clock)
                self.pins[slot] += 1  # it may end at once, and must not leave for the next one
                own.append(slot)
            self._settle_arrived(missing)
        finally:
            self._let_go(np.array(own, np.int32))
        return True

    def _slot(self, horizon: int) -> int:
        """Return a slot whose page is needed last, after `horizon`; −1 where there is none."""
        for _ in range(2):
            if self._free:
                return self._free.pop()
            later = np.where(self.pins == 0, self.next_use, -UNPLANNED)
            slot = int(later.argmax())
            if later[slot] > horizon:
                self._leave(slot)
                return slot
            if not self._settle_ended():
                break
        return -1

    def _leave(self, slot: int) -> None:
        """Take the page of a slot out of the table, and forget its read, if any: none is pinned."""
        page = int(self._page_of[slot])
        if self._readings.pop(page, None) is not None:
            self._memory.ended(slot, arrived=False)
        self.table[page] = self._page_of[slot] = -1

    def _begin(self, page: int, slot: int, step: int) -> None:
        try:
            begun = _Begun(self._read(page, slot, again=False))
        except BaseException:
            self._memory.ended(slot, arrived=False)
            self._free.append(slot)
            raise
        self._page_of[slot], self.table[page] = page, slot
        self.next_use[slot], self._fresh[slot] = step, True
        self._readings[page] = begun
        if not isinstance(begun.reading, Copying) or begun.reading.done():
            self._keep(begun, slot)

    def _keep(self, begun: _Begun, slot: int) -> None:
        """Pin a slot until a read that goes on by itself has ended."""
        if not begun.is_pinned:
            begun.is_pinned = True
            self.pins[slot] += 1

    def _read(self, page: int, slot: int, *, again: bool) -> Reading:
        number = int(self._bases.searchsorted(page, "right")) - 1
        source, image = self._sources[number](), self._images[number]
        if source is None:
            raise RuntimeError("an image was read that is gone")
        region = image.region(page)
        out = image.part(region, self._memory.host(slot))
        self._traffic.bytes_moved += out.nbytes
        begin = self._reader.again if again else self._reader.begin
        return begin(source, region, out)

    def _arrive(self, pages: NDArray[np.int64], slots: NDArray[np.int32]) -> bool:
        """Wait for what is on its way; have read once more what could not be read.

        False where a page is in another slot by now, or nowhere: it failed for another thread.
        """
        for page, slot in zip(pages.tolist(), slots.tolist(), strict=True):
            while (begun := self._readings.get(page)) is not None and self.table[page] == slot:
                self._own.waited = self._own.waited or not begun.reading.done()
                failure = _ended(begun.reading)
                with self._changed:
                    is_mine = self._readings.get(page) is begun  # no other thread was faster
                    if is_mine and failure is not None and not begun.is_second:
                        again = _Begun(self._read(page, slot, again=True), True, begun.is_pinned)
                        self._readings[page] = again  # another one: who waits for it still has this
                        self._keep(again, slot)
                        continue
                    if is_mine:
                        self._settle(page, slot, failure)
                    if failure is not None and begun.is_second:
                        raise failure
        return bool((self.table[pages] == slots).all())

    def _settle(self, page: int, slot: int, failure: BaseException | None) -> None:
        """End a read: what failed is nowhere, and its slot is free once nobody has it pinned."""
        self.pins[slot] -= self._readings.pop(page).is_pinned
        if failure is None:
            self._count(page, slot)
        self._memory.ended(slot, arrived=failure is None)
        if failure is not None:
            self.table[page] = self._page_of[slot] = -1
            if self.pins[slot] == 0:
                self._free.append(slot)
            else:
                self._n_failed += 1
        self._changed.notify_all()

    def _settle_arrived(self, pages: Sequence[int]) -> None:
        """End those reads that were over as soon as they began; what failed is tried once more."""
        for page in pages:
            begun = self._readings.get(page)
            if begun is not None and begun.reading.done() and _ended(begun.reading) is None:
                self._settle(page, int(self.table[page]), None)

    def _settle_ended(self) -> bool:
        """End the reads that have ended by now; tell whether there were any.

        What failed is left to whoever waits for it, if anybody, who has it read once more.
        """
        ended = [pair for pair in self._readings.items() if pair[1].reading.done()]
        n_settled = 0
        for page, begun in ended:
            slot, failure = int(self.table[page]), _ended(begun.reading)
            if failure is None or self.pins[slot] == begun.is_pinned:
                self._settle(page, slot, failure)
                n_settled += 1
        return n_settled > 0

    def _count(self, page: int, slot: int) -> None:
        number = int(self._bases.searchsorted(page, "right")) - 1
        image, source = self._images[number], self._sources[number]()
        if image.dtype.kind == "f" and source is not None:
            pixels = image.part(image.region(page), self._memory.host(slot))
            source.count((page - image.base,), pixels)

    def _unpin(
        self,
        slots: NDArray[np.int32],
        next_use: NDArray[np.int64] | None,
        *,
        read: bool = False,
    ) -> None:
        with self._changed:
            if read:
                self._memory.free_behind(slots)
            known = UNPLANNED - self.clock if next_use is None else self.clock + next_use
            self.next_use[slots] = known
            self._let_go(slots)
            self._changed.notify_all()

    def _let_go(self, slots: NDArray[np.int32]) -> None:
        """Take pins back; a slot whose page failed meanwhile is free now."""
        self.pins[slots] -= 1
        if self._n_failed:
            failed = (self._page_of[slots] < 0) & (self.pins[slots] == 0)
            self._free += slots[failed].tolist()
            self._n_failed -= int(np.count_nonzero(failed))

    def _too_few(self, n_pages: int) -> Message:
        slot_bytes = max(image.page_bytes for image in self._images)
        return Message(
            f"one patch and its context need {n_pages} chunks of {slot_bytes} bytes, but the "
            f"memory budget holds {self.n_slots}: raise ",
            argument("memory_budget"),
            f" to at least {n_pages * slot_bytes} bytes",
        )


def _ended(reading: Reading) -> BaseException | None:
    """Wait for a read; return what went wrong."""
    try:
        reading.result()
    except Exception as error:
        return error
    return None
