"""Flips and turns against those of careamics 0.3.5."""

import numpy as np
import pytest
from reference import turned

from gpu_patch import Augmentation

pytest.importorskip("careamics", reason="the live comparison needs careamics 0.3.5")

from careamics.config.augmentations import XYFlipConfig, XYRandomRotate90Config
from careamics.dataset.augmentation.compose import Compose


def uniforms():
    """Numbers that lead to every outcome."""
    steps = [0.05, 0.45, 0.7, 0.95]
    return np.array(np.meshgrid(*[steps] * 4)).reshape(4, -1)


@pytest.mark.parametrize("flip", [True, "x", "y", False])
@pytest.mark.parametrize("rotate", [True, False])
@pytest.mark.parametrize("shape", [(2, 5, 5), (2, 3, 4, 4)])
def test_the_same_patches_may_come_out(flip, rotate, shape):
    patch, target = np.arange(np.prod(shape)).reshape(shape), -np.arange(shape[-1] ** 2)
    target = target.reshape(1, shape[-1], shape[-1])
    transforms = []
    if flip:
        axes = {"flip_x": flip in (True, "x"), "flip_y": flip in (True, "y")}
        transforms.append(XYFlipConfig(seed=0, **axes))
    if rotate:
        transforms.append(XYRandomRotate90Config(seed=1))
    compose = Compose(transforms)
    theirs = {tuple(array.tobytes() for array in compose(patch, target)) for _ in range(400)}
    orientations = Augmentation(flip=flip, rotate=rotate).orientations(uniforms())
    ours = {
        (turned(patch, o).tobytes(), turned(target, o).tobytes())
        for o in np.unique(orientations).tolist()
    }
    assert ours == theirs


def test_probabilities_are_careamics_defaults():
    assert XYFlipConfig().p == Augmentation().flip_p
    assert XYRandomRotate90Config().p == Augmentation().rotate_p
