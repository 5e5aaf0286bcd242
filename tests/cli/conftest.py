import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A working folder with small images of many kinds."""
    import tifffile

    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (100, 120), np.uint8)
    Image.fromarray(grey).save("grey.png")
    Image.fromarray(grey[:80]).save("small.png")
    Image.fromarray(rng.integers(0, 256, (90, 110, 3), np.uint8)).save("colour.png")
    for name, shape, axes in (
        ("pair.tif", (2, 100, 120), "CYX"),
        ("volume.tif", (12, 2, 70, 80), "ZCYX"),
        ("series.tif", (3, 2, 100, 120), "TCYX"),
    ):
        pixels = rng.integers(0, 4000, shape, np.uint16)
        tifffile.imwrite(name, pixels, imagej=True, metadata={"axes": axes})
    tifffile.imwrite("unknown.tif", rng.integers(0, 9, (2, 50, 60), np.uint8), metadata=None)
    (tmp_path / "broken.tif").write_bytes((tmp_path / "pair.tif").read_bytes()[:3000])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "folder").mkdir()
    return tmp_path
