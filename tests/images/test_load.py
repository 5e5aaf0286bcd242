"""From a reader to a device: what is copied, and what memory it takes on the way."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from emulation import fake_cupy
from emulation.gpu import gpu
from formats import canonical, numbered

from gpu_patch.device import Uploader
from gpu_patch.images import loading
from gpu_patch.images.readers import ImageInfo, ImageReader

AXES = "TCZYX"
WHOLE = (1, 1, 4, 37, 53)
"""A chunk that leaves regions without gaps; others do not."""


class Made(ImageReader):
    """An image without a file, that of `numbered`."""

    def __init__(self, chunk, dtype="uint16", breaks_after=None):
        self.data = numbered(AXES, dtype)
        self.left = breaks_after
        info = ImageInfo("made", "made", self.data.shape, AXES, self.data.dtype, chunk)
        super().__init__(info, None)

    def _select(self, key):
        if self.left == 0:
            raise ValueError("it is damaged")
        self.left = self.left and self.left - 1
        return self.data[key]


def load(reader, device="cuda:0", progress=lambda _: None):
    return loading.load(reader, device, progress)


@pytest.mark.parametrize("dtype", ["uint16", "int64"])
@pytest.mark.parametrize("chunk", [(1, 1, 1, 1, 1), (2, 1, 3, 10, 20), (1, 2, 4, 37, 53), WHOLE])
@pytest.mark.parametrize("nbytes", [1000, 5000, 1 << 25])
def test_upload(monkeypatch, nbytes, chunk, dtype):
    monkeypatch.setattr(loading, "_PIECE_BYTES", nbytes)
    with fake_cupy.installed():
        gpu.n_devices = 2
        reader, used, steps = Made(chunk, dtype), [], []

        def progress(n):
            steps.append(n)
            used.append(gpu.used_bytes(1))

        found = load(reader, "cuda:1", progress)
        assert found.dtype == reader.info.resident_dtype
        # no stream need wait for it
        np.testing.assert_array_equal(found._pixels, canonical(reader.data, AXES))
        assert found.device.id == 1
        assert {action.device for action in gpu.log} == {1}
        assert [action.what for action in gpu.log if action.kind == "upload"] == steps
        assert sum(steps) == found.nbytes
        pinned = [action.what for action in gpu.log if action.kind == "pin"]
        assert pinned == [max(steps)] * 2
        # one more piece, where what is read has gaps in the image
        assert max(used) <= found.nbytes + max(steps)
        assert gpu.used_bytes(1) == found.nbytes
        if chunk == WHOLE:
            assert max(used) == found.nbytes
            assert not gpu.count("launch")


def test_reading_and_copying_overlap(monkeypatch):
    monkeypatch.setattr(loading, "_PIECE_BYTES", 5000)
    with fake_cupy.installed():
        copied = []
        load(Made(WHOLE), progress=lambda _: copied.append(gpu.stream.completed))
        # of n pieces all but the last two have been waited for
        assert copied == [0, 0, *range(1, len(copied) - 1)]
        assert [b - a for a, b in pairwise(copied[1:])] == [1] * (len(copied) - 2)


def test_larger_parts_after_smaller_ones():
    data = numbered("YX")
    with fake_cupy.installed() as cupy:
        image = cupy.empty(data.shape, data.dtype)
        with Uploader("cuda:0", data.nbytes) as uploader:
            for columns in (slice(0, 3), slice(3, 5), slice(5, None)):
                uploader.fill(image[:, columns], partial(np.copyto, src=data[:, columns]))
        np.testing.assert_array_equal(image._pixels, data)


@pytest.mark.parametrize("n_pieces", [1, 4])
def test_error_in_between(monkeypatch, n_pieces):
    monkeypatch.setattr(loading, "_PIECE_BYTES", 5000)
    with fake_cupy.installed():
        with pytest.raises(ValueError, match="damaged") as caught:
            load(Made((2, 1, 3, 10, 20), breaks_after=n_pieces))
        assert caught.value.__traceback__ is not None
        assert gpu.used_bytes() == 0
        assert not gpu.pinned
        gpu.finish()  # nothing reads pinned memory that was given back


def test_no_room_for_a_piece(monkeypatch):
    monkeypatch.setattr(loading, "_PIECE_BYTES", 5000)
    with fake_cupy.installed():
        reader = Made((2, 1, 3, 10, 20))
        gpu.capacity = reader.info.nbytes + 100
        with pytest.raises(
            MemoryError, match=r"while reading made: cuda:0 has no room for .* images"
        ):
            load(reader)
        assert gpu.used_bytes() == 0


def test_no_room_for_an_image():
    with fake_cupy.installed():
        gpu.capacity = 1000
        with pytest.raises(MemoryError, match=r"^cuda:0 has no room for 0\.00 GB of made: "):
            load(Made(WHOLE))
    huge = Made(WHOLE)
    huge.info = ImageInfo("huge", "made", (1 << 30, 1 << 30), "YX", np.dtype("f4"), (1, 1))
    with pytest.raises(MemoryError, match=r"^the host has no room for 4611686018\.\d+ GB of"):
        load(huge, "cpu")


class Far(Made):
    """The same on a server."""

    is_far = True

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.threads, self.begun, self.most = ThreadPoolExecutor(3), [], 0

    def fast(self):
        return self

    def begin(self, region, out):
        self.begun.append(self.threads.submit(self.read, region, out))
        return self.begun[-1]


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
@pytest.mark.parametrize("dtype", ["uint16", "int8"])
def test_pieces_of_servers_are_read_ahead(monkeypatch, device, dtype):
    monkeypatch.setattr(loading, "_FAR_BYTES", 3000)
    monkeypatch.setattr(loading, "_FAR_AT_ONCE", 5)
    with fake_cupy.installed():
        reader, ahead, steps = Far((1, 1, 2, 9, 20), dtype), [], []

        def progress(n):
            steps.append(n)
            ahead.append(len(reader.begun) - len(steps))

        found = load(reader, device, progress)
        pixels = found if device == "cpu" else found._pixels
        np.testing.assert_array_equal(pixels, canonical(reader.data, AXES))
        assert sum(steps) == found.nbytes
        assert ahead[0] == max(ahead) == 4
        assert ahead[-1] == 0


def test_few_large_chunks_are_read_ahead(monkeypatch):
    monkeypatch.setattr(loading, "_FAR_BYTES", 1000)
    monkeypatch.setattr(loading, "_FAR_AT_ONCE", 5)
    reader, ahead = Far((1, 1, 2, 37, 20)), []  # of 2,960 bytes
    load(reader, "cpu", lambda _: ahead.append(len(reader.begun) - len(ahead)))
    assert max(ahead) == 2


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_nothing_is_read_any_more_after_an_error(monkeypatch, device):
    monkeypatch.setattr(loading, "_FAR_BYTES", 3000)
    with fake_cupy.installed():
        reader = Far((1, 1, 2, 9, 20), breaks_after=5)
        with pytest.raises(ValueError, match="it is damaged"):
            load(reader, device)
        assert len(reader.begun) > 5
        assert all(each.done() for each in reader.begun)
