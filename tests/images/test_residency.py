"""The report of what is resident."""

import pickle

import numpy as np
from emulation import fake_cupy

from gpu_patch import ImageStack, residency


def stack(shape, axes, dtype="uint8", **options):
    return ImageStack.from_array(np.zeros(shape, dtype), axes, **{"device": "cpu", **options})


def test_nothing():
    assert str(residency()) == "no images are resident"
    assert residency().nbytes == {}


def test_stacks_count_while_they_live():
    small, large = stack((30, 40), "YX"), stack((2, 3, 100, 200), "SCYX", "uint16")
    assert residency().stacks == (large, small)
    assert residency().nbytes == {"cpu": 240_000 + 1200}
    assert str(residency()) == (
        "cpu: 241.2 kB of images\n"
        "   240.0 kB  2 x 3 x 100 x 200 uint16  array\n"
        "     1.2 kB  1 x 1 x 30 x 40 uint8  array"
    )
    del large
    assert residency().stacks == (small,)


def test_stacks_of_another_process_count():
    copy = pickle.loads(pickle.dumps(stack((30, 40), "YX")))
    assert residency().stacks == (copy,)


def test_memory_counts_once():
    pixels = np.zeros((1, 1, 30, 40), np.uint8)
    kept = [ImageStack.from_array(pixels, "SCYX", device="cpu") for _ in range(2)]
    assert residency().nbytes == {"cpu": 1200}
    assert len(residency().stacks) == len(kept)


def test_devices_apart():
    with fake_cupy.installed():
        kept = [stack((30, 40), "YX"), stack((50, 40), "YX", device="cuda")]
        assert residency().nbytes == {"cpu": 1200, "cuda:0": 2000}
        assert "cuda:0: 2.0 kB of images, 1.1 GB free\n" in str(residency())
        del kept[1]
    assert residency().nbytes == {"cpu": 1200}
