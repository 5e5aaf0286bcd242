"""predict with PyTorch: modules of every kind, and functions that return tensors."""

from __future__ import annotations

import numpy as np
import pytest
from pixels import distinct

import gpu_patch
from gpu_patch import predict

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

PIXELS = distinct((60, 45), "uint16")
TILES = {"tile_size": (16, 16), "overlaps": (4, 4), "progress": False, "batch_size": 5}


def images():
    return gpu_patch.ImageStack.from_array(PIXELS, "YX", device="cpu")


class Double(torch.nn.Module):
    """x · weight, and in training something else."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(2.0))
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, x):
        return self.dropout(x[:, :1] * self.weight)


def scripted():
    return torch.jit.script(Double())


def traced():
    return torch.jit.trace(Double().eval(), torch.ones(1, 1, 16, 16))


def exported():
    if not hasattr(torch.export, "Dim"):
        pytest.skip("this torch exports no modules with sizes that differ")
    batch = torch.export.Dim("batch")
    example = torch.ones(2, 1, 16, 16)
    program = torch.export.export(Double().eval(), (example,), dynamic_shapes=({0: batch},))
    return program.module()


@pytest.mark.parametrize("make", [Double, scripted, traced, exported])
def test_modules(make):
    (image,) = predict(images(), make(), **TILES).images
    np.testing.assert_array_equal(image, PIXELS.astype(np.float32) * 2)


class Sampled(torch.nn.Module):
    """Dropout, and what is not to train, below one another; notes the modes that it runs in."""

    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.BatchNorm2d(1))
        self.seen = set()

    def forward(self, x):
        self.seen.add((self.training, *[part.training for part in self.inner]))
        return self.inner(x)


def mixed():
    module = Sampled().eval()
    module.inner[0].train()  # dropout alone, as for Monte Carlo samples
    return module


MODES = {
    "forgotten": (Sampled, None, (False, False, False)),
    "dropout left on": (mixed, None, (False, True, False)),
    "all kept": (Sampled, "keep", (True, True, True)),
    "mixed kept": (mixed, "keep", (False, True, False)),
    "all evaluated": (mixed, "eval", (False, False, False)),
}


@pytest.mark.parametrize("case", MODES.values(), ids=MODES)
def test_modes_during_the_run(case):
    make, training_mode, expected = case
    module = make()
    before = [part.training for part in module.modules()]
    predict(images(), module, training_mode=training_mode, **TILES)
    assert module.seen == {expected}
    assert [part.training for part in module.modules()] == before


def test_dropout_that_was_left_on_is_sampled():
    module = mixed()
    torch.manual_seed(0)
    found = predict(images(), module, n_samples=5, **TILES)
    assert found.std[0].max() > 0
    with pytest.warns(UserWarning, match=r"deviation is 0 .* 5 samples.*model\.dropout\.train\(\)"):
        off = predict(images(), module, n_samples=5, training_mode="eval", **TILES)
    assert not off.std[0].any()


@pytest.mark.parametrize("make", [Double, scripted])
def test_samples_of_a_module_in_training_mode_come_with_a_remark(make):
    with (
        pytest.warns(UserWarning, match="the standard deviation is 0"),
        pytest.warns(UserWarning, match=r"is put into evaluation mode.* training_mode='keep'"),
    ):
        predict(images(), make(), n_samples=2, **TILES)
    torch.manual_seed(0)
    found = predict(images(), make(), n_samples=2, training_mode="keep", **TILES)
    assert found.std[0].max() > 0


def test_parts_without_modes_do_not_keep_others_from_theirs():
    module = torch.nn.Sequential(Double(), exported(), Double())
    (image,) = predict(images(), module, **TILES).images
    np.testing.assert_array_equal(image, PIXELS.astype(np.float32) * 8)
    assert all(part.training for part in module)


@pytest.mark.parametrize("training_mode", [None, "eval", "keep"])
@pytest.mark.parametrize("make", [Double, scripted])
def test_modes_are_as_before(make, training_mode):
    module = make()
    module.dropout.eval()
    modes = [part.training for part in module.modules()]
    predict(images(), module, training_mode=training_mode, **TILES)
    assert [part.training for part in module.modules()] == modes
    assert torch.is_grad_enabled()

    def broken(*_):
        raise RuntimeError("broken")

    module.forward = broken
    if make is Double:
        with pytest.raises(RuntimeError, match="broken"):
            predict(images(), module, training_mode=training_mode, **TILES)
        assert [part.training for part in module.modules()] == modes


@pytest.mark.parametrize("make", [lambda: torch.nn.LeakyReLU(0.5, inplace=True), torch.nn.Identity])
def test_modules_that_work_in_place_see_the_same_tile_in_each_sample(make):
    class Drawing(torch.nn.Module):
        """x / 2 and 3 x in turn, where a tile is below 0."""

        def __init__(self):
            super().__init__()
            self.inner, self.calls = make(), 0

        def forward(self, x):
            self.calls += 1
            return self.inner(x.sub_(300)).mul_(1 + self.calls % 2)

    found = predict(images(), Drawing().eval(), n_samples=4, **TILES)
    tile = PIXELS.astype(np.float32) - 300
    if make is not torch.nn.Identity:
        tile = np.where(tile < 0, tile / 2, tile)
    np.testing.assert_allclose(found.images[0], 1.5 * tile, rtol=1e-6)
    np.testing.assert_allclose(found.std[0], np.abs(tile) / np.sqrt(3), rtol=1e-5)


def test_modules_make_no_gradients():
    class Noting(Double):
        def forward(self, x):
            assert not self.training
            assert not torch.is_grad_enabled()
            assert x.dtype == torch.float32
            return super().forward(x)

    predict(images(), Noting(), **TILES)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_modules_of_other_types_get_what_they_take(dtype):
    small = gpu_patch.ImageStack.from_array(PIXELS % 128, "YX", device="cpu")
    (image,) = predict(small, Double().to(dtype), **TILES).images
    np.testing.assert_array_equal(image, (PIXELS % 128).astype(np.float32) * 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.to(torch.bfloat16).to(torch.float64),
        lambda x: x.clone().requires_grad_() * 1,
        lambda x: x.to(memory_format=torch.channels_last) if x.ndim == 4 else x,
        lambda x: x.expand(-1, 1, -1, -1).transpose(2, 3).contiguous().transpose(2, 3),
        lambda x: x.to(torch.int32),
    ],
    ids=["bfloat16", "with gradients", "channels last", "strided", "whole numbers"],
)
def test_functions_may_return_any_tensor(change):
    small = gpu_patch.ImageStack.from_array(PIXELS % 128, "YX", device="cpu")
    (image,) = predict(small, lambda x: change(torch.from_numpy(x)), **TILES).images
    np.testing.assert_array_equal(image, PIXELS % 128)


def test_samples_of_a_stochastic_module():
    class Noise(torch.nn.Module):
        def forward(self, x):
            return x + torch.randn_like(x)

    torch.manual_seed(0)
    found = predict(images(), Noise().eval(), n_samples=50, **TILES)
    assert np.abs(found.images[0] - PIXELS).max() < 1
    assert 0.6 < found.std[0].min() < found.std[0].max() < 1.6


def test_a_module_elsewhere_is_refused():
    with pytest.raises(ValueError, match=r"model is on meta, but the images are on cpu: .*\.to"):
        predict(images(), Double().to("meta"), **TILES)


def test_tuples_are_refused():
    class Pair(torch.nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(TypeError, match=r"a tuple of 2: .*model\(batch\)\[0\]"):
        predict(images(), Pair(), **TILES)


def test_going_on_with_another_model_is_refused(tmp_path):
    pytest.importorskip("zarr")
    options = {**TILES, "out": tmp_path / "out.zarr", "chunk_size": (16, 16)}

    class Breaking(Double):
        calls = 0

        def forward(self, x):
            Breaking.calls += 1
            if Breaking.calls == 4:
                raise RuntimeError("broken")
            return super().forward(x)

    module = Breaking()
    with pytest.raises(RuntimeError, match="broken"):
        predict(images(), module, **options)
    module.weight.data += 1
    with pytest.raises(ValueError, match="cannot be gone on with"):
        predict(images(), module, resume=True, **options)
    module.weight.data -= 1
    predict(images(), module, resume=True, **options)
