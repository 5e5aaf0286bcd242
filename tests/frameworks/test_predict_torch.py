"""predict with PyTorch: modules of every kind, and functions that return tensors."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from pixels import distinct

import gpu_patch
from gpu_patch import predict
from gpu_patch.predict.identity import identify

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


# ---- which model it is -------------------------------------------------------------------------


class Net(torch.nn.Module):
    """Changes attributes of itself when it runs, and has some that are its user's."""

    def __init__(self, slope=0.5, scale=2.0):
        super().__init__()
        self.inner = torch.nn.Sequential(
            torch.nn.Conv2d(1, 3, 3, padding=1), torch.nn.BatchNorm2d(3)
        )
        self.activation = torch.nn.LeakyReLU(slope)
        self.register_buffer("mask", torch.ones(1), persistent=False)
        self._scale, self.n_calls, self.last = scale, 0, None

    def forward(self, x):
        self.n_calls += 1
        self.last = x
        return self.activation(self.inner(x)) * self._scale * self.mask


class Scaled(torch.nn.Module):
    def __init__(self, slope, scale, weight):
        super().__init__()
        self.inner = torch.nn.LeakyReLU(slope)
        self.weight = torch.nn.Parameter(torch.tensor(weight))
        self.scale = scale

    def forward(self, x):
        return self.inner(x) * self.scale * self.weight


class Another(Net):
    """Of the same weights."""

    def forward(self, x):
        return super().forward(x) + 1


def net(kind=Net, **options):
    torch.manual_seed(0)
    return kind(**options).eval()


def changed(change):
    def make():
        module = net()
        with torch.no_grad():
            change(module)
        return module

    return make


def hooked(module):
    module.inner.register_forward_hook(lambda module, inputs, output: output + 1)


DIFFERING = {
    "weight": (changed(lambda m: m.inner[0].weight[2, 0, 1, 1].add_(1e-3)), "weights"),
    "buffer": (changed(lambda m: m.inner[1].running_var.mul_(2)), "weights"),
    "buffer that is not saved": (changed(lambda m: m.mask.mul_(2)), "weights"),
    "data type": (lambda: net().double(), "weights"),
    "class": (lambda: net(Another), "code"),
    "hook": (changed(hooked), "code"),
    "setting of torch's": (lambda: net(slope=0.1), "settings"),
    "setting of the user's": (lambda: net(scale=3.0), "settings"),
    "mode": (changed(lambda m: m.inner[1].train()), "settings"),
}


@pytest.mark.parametrize("case", DIFFERING.values(), ids=DIFFERING)
def test_modules_that_differ(case):
    make, part = case
    before, after = identify(net()), identify(make())
    assert not after.unknown
    assert {k for k in before.parts if before.parts[k] != after.parts[k]} == {part}


SAME = {
    "made again": net,
    "on another device and back": lambda: net().to("cpu"),
    "channels last": lambda: net().to(memory_format=torch.channels_last),
    "without gradients": lambda: net().requires_grad_(False),
    "after a call": changed(lambda m: m(torch.ones(2, 1, 8, 8))),
    "loaded": lambda: _loaded(net(), Net().eval()),
    "in parallel": lambda: torch.nn.DataParallel(net()).eval(),
}


def _loaded(one, other):
    other.load_state_dict(one.state_dict())
    return other


@pytest.mark.parametrize("make", SAME.values(), ids=SAME)
def test_modules_that_are_the_same(make):
    assert identify(make()) == identify(net())


@pytest.mark.parametrize("kind", ["scripted", "traced", "exported"])
def test_modules_from_files_by_code_settings_and_weights(kind):
    """Also settings that are numbers inside the code."""
    example = torch.ones(2, 1, 16, 16)

    def made(*values):
        module = Scaled(*values).eval()
        if kind == "exported":
            return torch.export.export(module, (example,)).module()
        return torch.jit.script(module) if kind == "scripted" else torch.jit.trace(module, example)

    first = identify(made(0.5, 2.0, 1.0))
    assert identify(made(0.5, 2.0, 1.0)) == first
    for other in ((0.25, 2.0, 1.0), (0.5, 3.0, 1.0), (0.5, 2.0, 1.5)):
        assert identify(made(*other)) != first


def test_modules_inside_functions_and_partial_functions_count():
    def closing(module):
        return lambda x: module(torch.from_numpy(x))

    for make in (closing, lambda module: functools.partial(closing, module), lambda m: m.forward):
        first = identify(make(net()))
        assert first == identify(make(net()))
        assert not first.unknown
        for differing, _ in DIFFERING.values():
            assert identify(make(differing())) != first


def test_another_module_of_the_same_weights_does_not_go_on(tmp_path):
    pytest.importorskip("zarr")
    options = {**TILES, "out": tmp_path / "out.zarr", "chunk_size": (16, 16), "resume": True}
    predict(images(), net(), **options)
    for make, part in DIFFERING.values():
        words = "is complete, but its (training_mode is .*, its )?model is another one, by its "
        with pytest.raises(FileExistsError, match=words + part):
            predict(images(), make(), **options)
    before = net()
    predict(images(), before, **options)
    assert before.n_calls == 0  # nothing was left to do


def test_modes_belong_to_a_run(tmp_path):
    pytest.importorskip("zarr")
    options = {**TILES, "out": tmp_path / "out.zarr", "resume": True, "model_id": "of May"}
    predict(images(), net().train(), **options)  # evaluated
    predict(images(), net(), **options)
    module = net()
    module.inner[1].train()
    with pytest.raises(FileExistsError, match=r"its training_mode is \[\], .* \['inner\.1'\]"):
        predict(images(), module, **options)
