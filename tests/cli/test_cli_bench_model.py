"""The time model of the bench: its three limits."""

import pytest

from gpu_patch.cli.bench.model import Gpu, Prediction, predict, shape_of, work_of
from gpu_patch.cli.bench.report import _model_cell

H200 = Gpu("H200", 132, 1.755e9, 4.3e12, 228 << 10)
TWO, THREE = (1, 64, 64), (16, 64, 64)


def test_each_limit_follows_what_it_is_of():
    shape = shape_of(TWO, 4, 32)
    found = predict(shape, 32, 36e6, H200)
    assert found.memory == pytest.approx(36e6 / 4.3e12)
    slow = H200._replace(bytes_per_second=H200.bytes_per_second / 2)
    assert predict(shape, 32, 36e6, slow) == found._replace(memory=2 * found.memory)
    quick = H200._replace(hertz=2 * H200.hertz)
    assert predict(shape, 32, 36e6, quick) == found._replace(
        issue=found.issue / 2, latency=found.latency / 2
    )
    small = H200._replace(multiprocessors=33)
    assert predict(shape, 32, 36e6, small).issue == pytest.approx(4 * found.issue)
    # a quarter of the multiprocessors need several waves of blocks
    assert 2 < predict(shape, 32, 36e6, small).latency / found.latency <= 4


def test_the_largest_limit_is_the_prediction():
    found = Prediction(3e-6, 9e-6, 4e-6)
    assert (found.seconds, found.limit) == (9e-6, "issue")
    assert _model_cell(found._asdict()) == "9.0 issue"
    assert _model_cell(None) == "-"


# what tests/cuda/ptx/counts.py prints, without what ptxas folds
COUNTED = [(TWO, 1, 32, 383_072), (TWO, 2, 32, 1_179_040), (TWO, 3, 32, 2_861_152),
           (TWO, 4, 32, 7_910_080), (TWO, 5, 32, 27_799_040), (TWO, 4, 128, 28_091_904),
           (THREE, 3, 4, 28_385_648), (THREE, 3, 16, 91_976_032)]  # fmt: skip


@pytest.mark.parametrize(("patch", "n_scales", "n_samples", "counted"), COUNTED)
def test_instructions_are_about_those_counted(patch, n_scales, n_samples, counted):
    work = work_of(shape_of(patch, n_scales, n_samples), n_samples)
    assert work.instructions == pytest.approx(counted, rel=0.04)


def test_blocks_are_those_of_the_launch():
    shape = shape_of(TWO, 4, 32)
    assert work_of(shape, 32).n_blocks == 32 * shape.blocks_per_sample == 480


def test_what_the_specialised_kernel_does_not_serve_has_no_model():
    assert shape_of(TWO, 6, 32) is shape_of(THREE, 5, 32) is None
