"""Pictures by their functions: what is drawn is what was made, from memory, chunks and files."""

from io import BytesIO

import numpy as np
import pytest

from gpu_patch import (
    BasicPatchConstr,
    ImageStack,
    MultiChannelTargetMsPatchConstr,
    PatchBatch,
    PatchExtractor,
    Prediction,
    RandomPatching,
    open_images,
    predict,
)
from gpu_patch.plots import colours, plot_batch, plot_prediction, plot_training
from gpu_patch.plots.panels import input_panels, target_panels
from gpu_patch.plots.subject import subject_of

pytest.importorskip("matplotlib")


def pixels(channels=3, size=(70, 91)):
    return np.random.default_rng(channels).integers(0, 4000, (channels, *size), np.uint16)


def mixing(images, **options):
    places = RandomPatching(images.shapes, (16, 24), 1)
    return MultiChannelTargetMsPatchConstr(
        places, images, 2, "reflect", [(0.2, 0.8)] * images.n_channels, 0.0, seed=3, **options
    )


def drawn(figure):
    """The bytes of a picture."""
    out = BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


def test_chunks_are_drawn_as_memory_is(tmp_path):
    import tifffile

    path = tmp_path / "a.tif"
    layout = {"tile": (32, 32), "photometric": "minisblack"}
    tifffile.imwrite(path, pixels(3, (1024, 999)), metadata={"axes": "CYX"}, **layout)
    made = []
    for budget in (None, "4MB"):
        images = open_images(path, by_chunk=budget and True, memory_budget=budget, progress=False)
        made.append(drawn(plot_batch(mixing(images), [4, 0])))
        assert (images.cache is None) == (budget is None)
    assert made[0] == made[1]


def test_the_epoch_counts():
    constructor = mixing(PatchExtractor([ImageStack(pixels(), "CYX")]))
    first, again, other = (drawn(plot_batch(constructor, [1, 2], epoch=e)) for e in (0, 0, 5))
    assert first == again != other


def test_four_patches_where_none_are_named():
    constructor = mixing(PatchExtractor([ImageStack(pixels(), "CYX")]))
    labels = [text.get_text() for text in plot_batch(constructor).texts]
    assert sum(label.startswith("index ") for label in labels) == 4


def test_channels_have_their_own_names_and_contrast():
    image = pixels()
    constructor = mixing(PatchExtractor([ImageStack(image, "CYX")]), channels=[2, 0])
    subject = subject_of(constructor)
    plan, batch = subject.plan([3]), constructor.construct_batch([3])
    (row,) = target_panels(subject, plan, batch)
    assert [panel.title.partition(",")[0] for panel in row] == ["channel 2", "channel 0"]
    for panel, c, made, tint in zip(
        row, (2, 0), batch.target[0], colours.channel_colours(2), strict=True
    ):
        expected = colours.tinted(made, colours.limits(image[c]), tint)
        np.testing.assert_array_equal(panel.rgb, expected)


def test_inputs_without_a_target():
    images = PatchExtractor([ImageStack(pixels(), "CYX")])
    constructor = BasicPatchConstr(RandomPatching(images.shapes, (16, 24), 1), images, seed=3)
    subject = subject_of(constructor)
    batch = PatchBatch(*constructor.construct_batch([0, 2])[:2], [])
    rows = input_panels(subject, subject.plan([0, 2]), batch)
    assert [panel.title for panel in rows[1]] == ["channel 0", "channel 1", "channel 2"]
    assert plot_batch(constructor).axes


def test_predictions_of_memory_are_drawn_as_files_are(tmp_path):
    images = [ImageStack(pixels(1, size), "CYX") for size in ((40, 50), (61, 37))]
    options = {"tile_size": (16, 16), "overlaps": (4, 4), "n_samples": 2, "progress": False}
    noise = np.random.default_rng(0)

    def model(batch):
        return np.concatenate([batch * 2, batch + noise.normal(0, 50, batch.shape)], axis=1)

    inside = predict(images, model, **options)
    noise = np.random.default_rng(0)
    written = predict(images, model, out=tmp_path, format="npy", **options)
    figure = plot_prediction(images, inside, subtitle="two samples")
    assert drawn(figure) == drawn(plot_prediction(images, written, subtitle="two samples"))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles[1:3] == ["Prediction, channel 0 of 2", "Prediction, channel 1 of 2"]
    assert titles[3].startswith("Standard deviation, channel 0 of 2 (0 … ")
    small = plot_prediction(images, inside, panel_size=2)
    assert small.get_size_inches()[0] < figure.get_size_inches()[0]
    with pytest.raises(ValueError, match="prediction must have an image for each of 1, found 2"):
        plot_prediction(images[0], inside)
    with pytest.raises(ValueError, match="found 0"):
        plot_prediction([], Prediction([], None))


def test_losses_on_given_axes():
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    losses = np.arange(1, 31)
    assert plot_training(losses, window=10, axes=axes, baseline=7.5) is axes.figure
    lines = {line.get_label(): line.get_xydata() for line in axes.lines}
    np.testing.assert_array_equal(lines["each step"][:, 1], losses)
    np.testing.assert_allclose(lines["mean of 10 steps"], np.c_[10:31, 5.5:26])
    assert (lines["the mean"][:, 1] == 7.5).all()


def test_structures_and_their_quality():
    truth = pixels(2, (20, 20))
    predicted = truth + np.array([1.0, 100.0])[:, None, None]
    titles = [axes.get_title(loc="left") for axes in plot_training([2, 1], truth, predicted).axes]
    quality = 20 * np.log10(np.ptp(truth[1]) / 100)
    assert f"structure 1, predicted ({quality:.1f} dB)" in titles
    assert "Loss" in titles


def test_what_is_trained_on_is_drawn():
    truth, image = pixels(2, (20, 20)), pixels(3, (30, 40))
    parts = np.ones((30, 40), np.uint8)
    parts[:10], parts[:5, :20] = 0, 2
    figure = plot_training([2, 1], truth, truth, image=image, parts=parts, validation=([1], [3]))
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert "67% trained on, 8% validated (framed), 25% lost" in titles
    (curve,) = (axes for axes in figure.axes if axes.lines)
    lines = {line.get_label(): line.get_xydata().tolist() for line in curve.lines}
    assert lines["validation"] == [[1, 3]]


SPLIT = {"image": np.ones((2, 5, 6)), "parts": np.ones((5, 6))}


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([1],), SPLIT, "parts are drawn beside structures: give truth"),
        (([1], *[np.ones((2, 3, 3))] * 2), SPLIT | {"parts": np.ones((5, 5))}, "parts must have"),
        (([1], *[np.ones((2, 3, 3))] * 2), {"parts": np.ones((5, 5))}, "parts must have the shape"),
        (([1],), {"validation": ([1, 2], [1])}, "validation must be two rows of one length"),
        (([],), {}, r"losses must be one-dimensional and not empty, found the shape \(0,\)"),
        (([[1, 2]],), {}, r"losses must be one-dimensional"),
        (([1], np.ones((2, 3, 3)), np.ones((2, 3, 4))), {}, "truth and predicted must have one"),
        (([1], np.ones((2, 3, 3))), {}, "truth and predicted must have one shape"),
        (([1], *[np.ones((2, 3, 3))] * 2), {"names": ["a"]}, "names must be 2"),
        (([1],), {"window": 0}, "window must be a whole number of at least 1"),
        (([1], *[np.ones((2, 3, 3))] * 2), {"axes": 1}, "truth needs a figure of its own"),
    ],
)
def test_what_is_no_training(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        plot_training(*arguments, **options)


def test_what_is_no_batch():
    constructor = mixing(PatchExtractor([ImageStack(pixels(), "CYX")]))
    with pytest.raises(ValueError, match="indices must be at most 26, a letter each, found 27"):
        plot_batch(constructor, [0] * 27)
    with pytest.raises(TypeError, match="constructor must be one of gpu_patch's constructors"):
        plot_batch("constructor")


def test_notebooks_show_figures():
    picture = plot_training([1, 2, 3])._repr_png_()
    assert picture.startswith(b"\x89PNG")
