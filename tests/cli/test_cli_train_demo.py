"""The command that trains a network: what it shows is what happened."""

import json
import re
import shlex
import sys
from importlib.util import find_spec

import numpy as np
import pytest

from gpu_patch import Augmentation, RandomPatching, split_validation
from gpu_patch.cli import main, make_parser
from gpu_patch.cli.phantom import make_phantom
from gpu_patch.cli.training.command import (
    HELD_OUT_SIZE,
    qualities_of,
    quality_lines,
    settings_of,
    time_lines,
)
from gpu_patch.plots import colours, plot_training
from gpu_patch.plots import training as training_plot
from gpu_patch.plots.training import psnr, running_mean

needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed")
OPTIONS = ["--device=cpu", "--size=256", "--patch-size=32", "--scales=2", "--batch-size=8"]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads that wait for each other take very long where other work keeps the cores busy."""
    if find_spec("torch") is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(folder, *options):
    file = folder / "figures.json"
    places = ["--out", str(folder), "--json", str(file)]
    assert main(["train-demo", *OPTIONS, *places, *options]) == 0
    return json.loads(file.read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Figures and report of a short loop, and the folder of its picture."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(words)))
        figures = train(folder, "--steps", "80", "--seed", "0")
    return figures, "\n".join(lines), folder


@needs_torch
def test_loss_falls(trained):
    losses = trained[0]["losses"]
    assert len(losses) == 80
    # targets are normalised: an untrained network is about as good as their mean
    assert 0.7 < np.mean(losses[:10]) < 1.5
    assert np.mean(losses[-10:]) < 0.75 * np.mean(losses[:10])


@needs_torch
def test_unmixed_better_than_without_training(trained):
    for constant, untrained, network in zip(
        *(trained[0]["psnr"][n] for n in ("a constant", "network, untrained", "network, trained")),
        strict=True,
    ):
        assert untrained < constant + 1 < network


@needs_torch
def test_report_says_the_figures(trained):
    figures, report, folder = trained
    assert "80 steps of 8 patches" in report
    assert "37 patches of 32×32 an epoch" in report
    parts = figures["parts"]
    assert parts == {"trained": 40 / 64, "validated": 16 / 64, "lost": 8 / 64}
    assert "62.5% of the image is trained on, 25.0% validated, 12.5% lost between" in report
    assert figures["val_steps"] == [25, 50, 75, 80]
    assert figures["val_losses"][-1] < 0.9 * figures["val_losses"][0]
    assert f"validated  loss {figures['val_losses'][-1]:.3f} at last" in report
    assert f"{figures['n_parameters']} parameters" in report
    for name, values in figures["psnr"].items():
        (line,) = re.findall(rf"^{name} +(.*)$", report, re.M)
        assert line.split() == [f"{value:.1f}" for value in values]
    # the first steps are left out
    waiting, training = (
        np.mean(figures[f"{part}_seconds"][5:]) for part in ("waiting", "training")
    )
    step = waiting + training
    for name, seconds in (
        ("waiting for the batch", waiting),
        ("training", training),
        ("together", step),
    ):
        (line,) = re.findall(rf"^{name} +([\d.]+ +[\d.]+%)$", report, re.M)
        assert line.split() == [f"{seconds * 1e3:.2f}", f"{seconds / step:.2%}"]
    assert f"{8 / step:.0f} patches/s" in report
    losses = figures["losses"]
    first, last = np.mean(losses[:20]), np.mean(losses[-20:])
    assert f"loss {first:.3f} at first, {last:.3f} at last" in report
    assert f"{folder / 'unmixed.png'} (" in report


@needs_torch
def test_picture(trained):
    from PIL import Image

    _, report, folder = trained
    picture = Image.open(folder / "unmixed.png")
    assert f"({picture.width}×{picture.height} pixels)" in report
    # panels show the held-out image pixel by pixel
    pixels = np.asarray(picture)[..., :3] / 255
    truth = make_phantom(HELD_OUT_SIZE, 1)
    for (y, x), image, colour in (
        ((125, 35), truth.mean(axis=0), (1, 1, 1)),
        ((125, 835), truth[0], colours.channel_colours(2)[0]),
        ((554, 835), truth[1], colours.channel_colours(2)[1]),
    ):
        expected = colours.tint(colours.stretch(image, colours.limits(image)), colour)
        found = pixels[y : y + HELD_OUT_SIZE, x : x + HELD_OUT_SIZE]
        # a frame lies on the outermost pixels
        assert np.abs(found - expected)[2:-2, 2:-2].max() < 0.005


def test_errors_are_orange_where_too_bright(tmp_path):
    from PIL import Image

    truth = make_phantom(HELD_OUT_SIZE, 0)
    predicted = truth.astype(np.float32)
    predicted[0, :100, :100] += 9999
    predicted[0, :100, 200:300] -= 9999
    plot_training([1, 0.5], truth, predicted, names=("a", "b")).savefig(tmp_path / "a.png")
    error = np.asarray(Image.open(tmp_path / "a.png"))[125:509, 1235:1619, :3]
    orange, black, blue = (error[5:95, x : x + 90].reshape(-1, 3) for x in (5, 105, 205))
    for pixels, colour in (
        (orange, training_plot._TOO_BRIGHT),
        (black, (0, 0, 0)),
        (blue, training_plot._TOO_DARK),
    ):
        np.testing.assert_allclose(pixels / 255, np.broadcast_to(colour, pixels.shape), atol=0.005)


@needs_torch
def test_picture_shows_what_is_trained_on(trained):
    """The training image, with a frame around what is validated, and what is lost dark."""
    from PIL import Image

    size = 256
    places = RandomPatching([(1, 2, size, size)], (32, 32))
    where = split_validation(places, 16, multiscale_count=2, seed=0).map(0, 0)
    pixels = make_phantom(size, 0)
    shown = colours.overlay(
        pixels, [colours.limits(channel) for channel in pixels], colours.channel_colours(2)
    )
    panel = Image.open(trained[2] / "unmixed.png").crop((35, 554, 35 + 384, 554 + 384))
    found = np.asarray(panel.resize((size, size), Image.Resampling.NEAREST))[..., :3] / 255
    frame = colours.grown(where != 2, 3) & colours.grown(where == 2, 2)
    inside = np.s_[5:-5, 5:-5]
    for part, brightness in ((0, 0.25), (1, 1), (2, 1)):
        plain = ((where == part) & ~frame)[inside]
        wrong = np.abs(found - brightness * shown)[inside][plain].max(axis=-1) > 0.1
        assert plain.sum() > 1000
        assert wrong.mean() < 0.2, part  # by a pixel, where it is enlarged
    assert (np.abs(found - (1, 1, 0)).max(axis=-1) < 0.01)[frame].mean() > 0.1


@needs_torch
def test_without_validation(tmp_path, capsys):
    figures = train(tmp_path, "--steps", "1", "--val", "0")
    assert "64 patches of 32×32 an epoch" in capsys.readouterr().out
    assert figures["parts"] is None
    assert figures["val_losses"] == []


@needs_torch
def test_same_seed_same_training(trained, tmp_path):
    figures, _, folder = trained
    again = train(tmp_path, "--steps", "80", "--seed", "0")
    for name in ("losses", "val_losses", "psnr", "settings"):
        assert again[name] == figures[name]
    pictures = [(place / "unmixed.png").read_bytes() for place in (folder, tmp_path)]
    assert pictures[0] == pictures[1]
    other = train(tmp_path, "--steps", "2", "--seed", "4")
    assert other["losses"][0] != figures["losses"][0]


@needs_torch
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_what_is_saved_predicts(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    figures = train(tmp_path, "--steps", "30", "--save", "a b.pt")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3:-1] == ["written    a b.pt", "written    a b.normalization.json"]
    told = lines[-1].removeprefix("for use    gpu-patch ")
    truth = make_phantom(HELD_OUT_SIZE, 1)
    np.save("mixture.npy", truth.mean(axis=0, dtype=np.float32))
    asked = shlex.split(told.replace("IMAGE", "mixture.npy").replace("DIR", "out.npy"))
    # another batch than in training, and tiles as there
    asked += ["--axes", "YX", "--device", "cpu", "--overlaps", "16", "--batch-size", "7"]
    assert main(asked) == 0
    assert not re.search("note|warning", "".join(capsys.readouterr()))
    expected = figures["psnr"]["network, trained"]
    assert psnr(np.load("out.npy"), truth) == pytest.approx(expected, abs=1e-3)
    other = [*asked, "--tile-size", "64", "--overwrite"]
    assert main(other) == 0
    assert psnr(np.load("out.npy"), truth) == pytest.approx(expected, abs=1)


@needs_torch
def test_one_step(tmp_path, capsys):
    figures = train(tmp_path, "--steps", "1", "--scales", "1")
    assert len(figures["losses"]) == len(figures["waiting_seconds"]) == 1
    assert "input: 1 scale\n" in capsys.readouterr().out


@needs_torch
def test_tiles_are_put_together_where_they_belong():
    import torch

    from gpu_patch.cli.training import loop
    from gpu_patch.feed import Normalization

    truth = make_phantom(100, 0)
    normalization = Normalization.mean_std(300, 50, [300, 300], [50, 50])

    class Echo(torch.nn.Module):
        def forward(self, x):
            return torch.cat([x[:, :1], 2 * x[:, :1]], dim=1)

    options = {"patch_size": 32, "n_scales": 2, "batch_size": 5, "device": "cpu"}
    found = loop.predict(Echo(), truth, normalization, **options)
    mixture = truth.mean(axis=0)
    expected = np.stack([mixture, 2 * mixture - 300])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-3)


@needs_torch
def test_training_patches_are_mixed_and_normalised():
    from gpu_patch.cli.training import loop
    from gpu_patch.feed import compute_normalization

    patches = loop.make_patches(make_phantom(256, 0), 32, 2, device="cpu", seed=0)
    normalization = compute_normalization(patches)
    loader = loop.make_loader(patches, 64, normalization, 0)
    (batch,) = loader
    assert loader.augmentation == Augmentation()
    assert batch.input.shape == (64, 2, 32, 32)
    assert batch.target.shape == (64, 2, 32, 32)
    for values in (batch.input[:, :1], batch.target):
        np.testing.assert_allclose(values.mean(axis=(0, 2, 3)), 0, atol=0.02)
        np.testing.assert_allclose(values.std(axis=(0, 2, 3)), 1, atol=0.02)


@needs_torch
def test_waiting_is_for_batches_and_training_the_rest(monkeypatch):
    import torch

    from gpu_patch.cli.training import loop
    from gpu_patch.feed import Normalization

    patches = loop.make_patches(make_phantom(128, 0), 32, 1, device="cpu", seed=0)
    now = [0]
    monkeypatch.setattr(loop.HostClock, "mark", lambda clock: now[0])
    construct_batch = patches.construct_batch

    def make_for_1(*arguments, **options):
        now[0] += 1
        return construct_batch(*arguments, **options)

    class TakesTen(torch.nn.Conv2d):
        def forward(self, x):
            now[0] += 10
            return super().forward(x)

    monkeypatch.setattr(patches, "construct_batch", make_for_1)
    normalization = Normalization.mean_std(300, 300, 300, 300)
    loader = loop.make_loader(patches, 6, normalization, 0)
    validation = loop.make_validation(patches, 6, normalization)
    # two whole batches in an epoch, and two of validation after the last step
    course = loop.train(TakesTen(1, 2, 1), loader, 5, validation)
    assert now == [5 * 11 + 3 * 11]
    assert course.val_steps.tolist() == [5]
    assert course.waiting_seconds.tolist() == [1] * 5
    assert course.training_seconds.tolist() == [10] * 5
    assert np.isfinite(course.losses).all()


class FakeStream:
    """Time of a device that works off a queue, as far as `torch.cuda.Event` shows it."""

    def __init__(self):
        self.host = self.device = 0.0

    def event(self, enable_timing):
        assert enable_timing
        return FakeEvent(self)


class FakeEvent:
    def __init__(self, stream):
        self.stream, self.waited = stream, False

    def record(self):
        self.time = max(self.stream.host, self.stream.device)

    def synchronize(self):
        self.waited = True

    def elapsed_time(self, later):
        return 1e3 * (later.time - self.time)


@needs_torch
def test_device_times_are_the_streams(monkeypatch):
    import torch

    from gpu_patch.cli.training.loop import StreamClock

    stream = FakeStream()
    monkeypatch.setattr(torch.cuda, "Event", stream.event)
    clock = StreamClock()
    marks = [clock.mark()]
    for host, device in ((1, 2), (2, 10), (3, 3)):
        stream.host += host
        marks.append(clock.mark())
        stream.device = max(stream.host, stream.device) + device
        marks.append(clock.mark())
    assert clock.seconds(marks).tolist() == [1, 2, 0, 10, 0, 3]
    assert [event.waited for event in marks] == [False] * 6 + [True]


@needs_torch
def test_torch_without_cuda(monkeypatch, tmp_path, capsys):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("gpu_patch.cli.training.command.resolve", lambda device: "cuda:0")
    out = tmp_path / "new"
    assert_fails(
        ["train-demo", "--out", str(out)], ["--device", "cannot use CUDA", "--device cpu"], capsys
    )
    assert not out.exists()


@needs_torch
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--patch-size 30", ["--patch-size", "multiple of 4", "30"]),
        ("--patch-size 4", ["--patch-size", "at least 8", "'4'"]),
        ("--steps 0", ["--steps", "at least 1", "'0'"]),
        ("--size 100", ["--size", "at least 128", "'100'"]),
        ("--size 128 --batch-size 5 --val 0", ["--batch-size", "at most 4", "128×128", "5"]),
        ("--size 512 --val 40", ["--val asks for 40", "at most 32, or strict=False", "--scales 2"]),
        ("--json nosuch/a.json", ["--json", "nosuch"]),
        ("--save nosuch/a.pt", ["--save", "nosuch"]),
        ("--save a.pt2", ["--save", "must end in .pt", "'a.pt2'"]),
        ("--out grey.png", ["--out", "grey.png", "must be a folder"]),
        ("--device toaster", ["device", "'toaster'"]),
    ],
)
def test_wrong_arguments(arguments, words, files, capsys):
    assert_fails(["train-demo", "--device", "cpu", *arguments.split()], words, capsys)
    assert not (files / "gpu-patch-demo").exists()


@pytest.mark.parametrize(
    ("missing", "extra"), [("torch", "torch"), ("tqdm", "cli"), ("matplotlib", "cli")]
)
def test_missing_package(missing, extra, tmp_path, monkeypatch, capsys):
    if missing != "torch" and find_spec("torch") is None:
        pytest.skip("PyTorch is not installed, which is asked for first")
    monkeypatch.chdir(tmp_path)
    for name in [missing, *(name for name in sys.modules if name.startswith(f"{missing}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, f"{missing}.figure", None)
    words = [f"train-demo needs {missing}", f"pip install 'gpu_patch[{extra}]'"]
    assert_fails(["train-demo"], words, capsys)
    assert not list(tmp_path.iterdir())


def test_defaults_depend_on_the_device(monkeypatch):
    options = make_parser().parse_args(["train-demo", "--seed", "5"])
    for device, batch_size, size in (("cpu", 16, 1024), ("cuda:0", 256, 2048)):
        monkeypatch.setattr("gpu_patch.cli.training.command.resolve", lambda name, d=device: d)
        found = settings_of(options)
        assert (found["device"], found["batch_size"], found["size"]) == (device, batch_size, size)
    # no more than an epoch has
    options.size, options.fraction_or_count = 128, 0
    assert settings_of(options)["batch_size"] == 4


def test_running_mean():
    losses = np.arange(30, dtype=np.float32)
    np.testing.assert_allclose(running_mean(losses, 20), np.arange(9.5, 20))
    np.testing.assert_allclose(running_mean(losses[:3], 20), [1])


def test_psnr_of_known_errors():
    truth = np.array([[[0, 10], [20, 100]], [[0, 0], [0, 1000]]], np.uint16)
    found = psnr(truth + np.array([1.0, 100.0])[:, None, None], truth)
    assert found == pytest.approx([40, 20])


def test_trivial_predictions_are_the_best_of_their_kind():
    truth = make_phantom(64, 0)
    nothing = np.zeros(truth.shape, np.float32)
    found = qualities_of(truth, nothing, truth + np.float32(1))
    mixture = truth.mean(axis=0)
    peaks = np.ptp(truth.astype(float), axis=(1, 2))
    for c, structure in enumerate(truth.astype(float)):
        rest = structure.var() * (1 - np.corrcoef(mixture.ravel(), structure.ravel())[0, 1] ** 2)
        for name, error in (
            ("a constant", structure.var()),
            ("a line through the mixture", rest),
            ("network, untrained", (structure**2).mean()),
            ("network, trained", 1),
        ):
            assert found[name][c] == pytest.approx(10 * np.log10(peaks[c] ** 2 / error))


def test_tables():
    assert time_lines({"waiting for the batch": 0.001, "training": 0.003}, 16)[1:] == [
        "waiting for the batch         1.00    25.00%",
        "training                      3.00    75.00%",
        "together                      4.00   100.00%",
        "4000 patches/s",
    ]
    assert quality_lines({"network, trained": [30.06, 25.0]})[1].split()[-2:] == ["30.1", "25.0"]


def assert_fails(arguments, words, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("gpu-patch: error: ")
    assert error.count("\n") == 1
    for word in words:
        assert word in error, error
