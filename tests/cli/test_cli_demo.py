import numpy as np
import pytest
import tifffile

from gpu_patch import ImageStack
from gpu_patch.cli import main
from gpu_patch.cli.demo import run_epoch
from gpu_patch.cli.modes import make_subject
from gpu_patch.cli.phantom import make_phantom, photograph


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(384, 0)


def test_phantom_is_a_camera_image(phantom):
    assert phantom.shape == (2, 384, 384)
    assert phantom.dtype == np.uint16
    for channel in phantom:
        assert channel.min() > 0
        assert 500 < channel.max() < 60000
        assert (channel == channel.max()).sum() < 10
        assert channel.std() > 100


def test_phantom_is_a_function_of_its_seed(phantom):
    assert (make_phantom(384, 0) == phantom).all()
    assert (make_phantom(384, 1) != phantom).mean() > 0.5


def test_phantom_has_two_distinct_structures(phantom):
    filaments, nuclei = phantom.astype(float)
    assert abs(np.corrcoef(filaments.ravel(), nuclei.ravel())[0, 1]) < 0.3

    def likeness(image, pixels):
        shifted = [image[pixels:, :-pixels].ravel(), image[:-pixels, pixels:].ravel()]
        return np.corrcoef(shifted)[0, 1]

    # lines are thin, nuclei are wide and lie on much empty background
    assert likeness(filaments, 8) < 0.35 < 0.6 < likeness(nuclei, 8)
    assert (nuclei < np.percentile(nuclei, 99.5) / 3).mean() > 0.6


@pytest.mark.parametrize("photons", [0, 50, 400])
def test_camera_has_shot_and_read_noise(photons):
    image = photograph(np.random.default_rng(0), np.full((300, 300), float(photons)))
    # 4 counts per photon, 2 photons of background, offset 100 and read noise of 6 counts
    assert image.mean() == pytest.approx(100 + 4 * (photons + 2), rel=0.01)
    assert image.var() == pytest.approx(16 * (photons + 2) + 36, rel=0.05)


def test_small_phantom():
    assert make_phantom(16, 3).shape == (2, 16, 16)


def test_demo(tmp_path, capsys):
    folder = tmp_path / "new" / "demo"
    options = ["--size", "150", "--batch-size", "4", "--scales", "2", "--seed", "7"]
    assert main(["demo", "--out", str(folder), *options]) == 0
    report, errors = capsys.readouterr()
    assert "(2, 150, 150), axes CYX, uint16" in report
    assert "9 patches in batches of 4" in report
    assert "patches/s" in report
    assert "megapixels/s" in report
    assert "gpu-patch preview" in report
    assert errors == ""  # no progress bar where stderr is no terminal
    assert (folder / "preview.png").read_bytes().startswith(b"\x89PNG")
    with tifffile.TiffFile(folder / "phantom.tif") as tiff:
        assert tiff.is_imagej
        assert tiff.series[0].axes == "CYX"
        assert (tiff.asarray() == make_phantom(150, 7)).all()


def test_an_epoch_is_every_patch_once(phantom, capsys):
    subject = make_subject(
        [[ImageStack(phantom, "CYX")]],
        [],
        mode="multichannel",
        patch_size=(64,),
        n_scales=2,
        padding="reflect",
        seed=0,
    )
    assert subject.constructor.n_patches == 36
    asked = []
    construct_batch = subject.constructor.construct_batch

    def record(indices, **options):
        asked.extend(indices)
        return construct_batch(indices, **options)

    subject.constructor.construct_batch = record
    seconds, n_pixels = run_epoch(subject, 7)
    assert asked == list(range(36))
    assert n_pixels == 36 * (2 + 2) * 64 * 64
    assert seconds > 0
