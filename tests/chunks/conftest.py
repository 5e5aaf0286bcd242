import pytest

from gpu_patch.chunks import image


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Keep chunks as small as the tests make them."""
    monkeypatch.setattr(image, "_LEAST_BYTES", 0)
