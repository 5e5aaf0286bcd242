import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from gpu_patch import ImageStack
from gpu_patch.cli.modes import make_subject
from gpu_patch.cli.phantom import make_phantom
from gpu_patch.plots import colours, plot_batch
from gpu_patch.plots.captions import explanation, names, title
from gpu_patch.plots.layout import Layout
from gpu_patch.plots.overview import Box, Overview, overviews_of, paint
from gpu_patch.plots.panels import input_panels, target_panels


def stack(pixels, axes, name="a.tif"):
    return ImageStack(pixels, axes, source=Path(name))


def subject_of(images, targets=(), **options):
    options = {
        "mode": None,
        "patch_size": (32,),
        "n_scales": 3,
        "padding": "reflect",
        "seed": 0,
    } | options
    return make_subject([[image] for image in images], [[image] for image in targets], **options)


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(160, 5)


def images_of(mode, phantom):
    if mode == "multichannel":
        return [stack(phantom, "CYX")]
    return [stack(phantom[0], "YX"), stack(phantom[1, :120], "YX", "b.tif")]


@pytest.mark.parametrize("mode", ["multichannel", "independent"])
def test_weights_in_titles_are_those_of_the_batch(mode, phantom):
    subject = subject_of(images_of(mode, phantom), mode=mode)
    indices = subject.choose(4, 0)
    plan, batch = subject.plan(indices), subject.constructor.construct_batch(indices)
    rows = target_panels(subject, plan, batch)
    noun = "channel" if mode == "multichannel" else "structure"
    seen = set()
    for b, row in enumerate(rows):
        found = [re.fullmatch(rf"{noun} (\d), weight (0\.\d\d)", panel.title) for panel in row]
        assert [match[1] for match in found] == ["0", "1"]
        weights = np.array([float(match[2]) for match in found])
        assert weights == pytest.approx(plan.weights[b], abs=0.00501)
        # and they are what the input was made with
        mixed = np.tensordot(weights, batch.target[b], 1)
        assert np.abs(mixed - batch.input[b, 0]).max() <= 0.006 * batch.target[b].sum(axis=0).max()
        seen.update(weights)
    assert len(seen) > 4


def test_panels_show_scales_from_the_native_one_outwards(phantom):
    subject = subject_of([stack(phantom, "CYX")])
    indices = subject.choose(2, 0)
    batch = subject.constructor.construct_batch(indices)
    rows = input_panels(subject, subject.plan(indices), batch)
    assert [[panel.title for panel in row] for row in rows] == [["×1", "×2", "×4"]] * 2
    assert [panel.scale for panel in rows[0]] == [0, 1, 2]
    for b in range(2):
        for scale in range(3):
            grey = rows[b][scale].rgb
            assert (grey == grey[..., :1]).all()
            order = np.argsort(batch.input[b, scale], axis=None)
            assert (np.diff(grey[..., 0].reshape(-1)[order]) >= 0).all()


def test_3d_shows_the_middle_plane(phantom):
    volume = np.stack([np.roll(phantom, 5 * z, axis=2) for z in range(7)], axis=1)
    subject = subject_of([stack(volume, "CZYX")], patch_size=(5, 32, 32), n_scales=2)
    assert subject.plan([0]).patch_size == (5, 32, 32)
    indices = subject.choose(1, 0)
    batch = subject.constructor.construct_batch(indices)
    (row,) = target_panels(subject, subject.plan(indices), batch)
    for c, panel in enumerate(row):
        assert panel.rgb.shape == (32, 32, 3)
        between = colours.limits(volume[c, 3])
        colour = colours.channel_colours(2)[c]
        expected = colours.tint(colours.stretch(batch.target[0, c, 2], between), colour)
        assert (panel.rgb == expected).all()


def test_one_number_is_limited_to_the_depth(phantom):
    volume = np.stack([phantom] * 7, axis=1)
    assert subject_of([stack(volume, "CZYX")], patch_size=(32,)).plan([0]).patch_size == (7, 32, 32)


def test_boxes_are_where_the_patches_are(phantom):
    subject = subject_of([stack(np.stack([phantom] * 3), "SCYX")], n_scales=2)
    indices = subject.choose(6, 0)
    overviews = overviews_of(subject.plan(indices), 2)
    specs = subject.constructor.construct_batch(indices).specs
    assert len(overviews) > 1
    seen = {}
    for overview in overviews:
        for b, boxes in overview.boxes.items():
            assert specs[b]["sample_idx"] == overview.sample_idx
            seen[b] = boxes
    for b, spec in enumerate(specs):
        y, x = spec["coords"]
        assert seen[b] == [Box(y, x, 32, 32), Box(y - 16, x - 16, 64, 64)]


def test_independent_structures_have_boxes_of_their_own(phantom):
    subject = subject_of(images_of("independent", phantom), mode="independent")
    indices = subject.choose(3, 0)
    specs = subject.constructor.construct_batch(indices).specs
    overviews = overviews_of(subject.plan(indices), 3)
    assert [overview.image_idx for overview in overviews] == [0, 1]
    for overview in overviews:
        for b in range(3):
            assert overview.boxes[b][0][:2] == tuple(specs[b]["all_coords"][overview.image_idx])
    assert overviews[0].boxes[0][0] != overviews[1].boxes[0][0]


def test_a_structure_may_have_many_images(phantom):
    filaments = [stack(part, "YX", f"filaments/{name}.tif") for part, name in parts(phantom[0])]
    nuclei = [stack(part[:-9], "YX", f"nuclei/{name}.tif") for part, name in parts(phantom[1])]
    subject = make_subject(
        [filaments, nuclei[:1]],
        [],
        mode="independent",
        patch_size=(32,),
        n_scales=2,
        padding="reflect",
        seed=0,
    )
    assert (subject.n_targets, subject.structures) == (2, [0, 0, 1])
    indices = subject.choose(9, 0)
    plan, batch = subject.plan(indices), subject.constructor.construct_batch(indices)
    assert batch.target.shape == (9, 2, 32, 32)
    assert set(plan.sources.image_idx[:, 0].tolist()) == {0, 1}
    assert set(plan.sources.image_idx[:, 1].tolist()) == {2}
    for b, (y, x) in enumerate(plan.sources.coords[:, 1]):
        assert (batch.target[b, 1] == nuclei[0].data[0, 0, y : y + 32, x : x + 32]).all()
    # files of one name are told apart by their folders
    assert names(subject.images) == ["filaments/a.tif", "b.tif", "nuclei/a.tif"]


def parts(image):
    return [(image[:80], "a"), (image[80:], "b")]


def test_channels_of_many_images_are_structures_too(phantom):
    images = [stack(phantom[:, :90], "CYX"), stack(phantom[:, 90:], "CYX", "b.tif")]
    subject = make_subject(
        [images],
        [],
        mode="independent",
        patch_size=(16,),
        n_scales=1,
        padding="reflect",
        seed=0,
    )
    assert subject.structures == [0, 0, 1, 1]
    assert (subject.images[3].data[0, 0] == phantom[1, 90:]).all()


@pytest.mark.parametrize(
    ("channels", "targets", "mode"),
    [(1, 0, "pred"), (2, 0, "multichannel"), (1, 2, "paired"), (2, 1, "basic")],
)
def test_mode_follows_from_channels_and_targets(channels, targets, mode, phantom):
    image = stack(phantom[:channels], "CYX")
    target = [stack(phantom[:targets], "CYX")] if targets else []
    assert subject_of([image], target).mode == mode


def test_channels_of_one_file_can_be_independent_structures(phantom):
    subject = subject_of([stack(phantom, "CYX")], mode="independent")
    assert [image.data_shape for image in subject.images] == [(1, 1, 160, 160)] * 2
    assert (subject.images[1].data[0, 0] == phantom[1]).all()


@pytest.mark.parametrize(
    ("box", "view"),
    [
        (Box(10, 20, 30, 30), Box(0, 0, 100, 200)),
        (Box(-20, 20, 60, 30), Box(-23, -3, 126, 206)),
        (Box(-900, 150, 300, 300), Box(-100, -3, 203, 303)),
    ],
)
def test_view_holds_image_and_boxes_but_not_too_much_beyond(box, view):
    assert Overview(0, 0, {0: [box]}).view(100, 200) == view


@pytest.mark.parametrize("padding", ["reflect", "periodic", "wrap", "zero"])
def test_margin_shows_what_the_padding_does(padding, phantom):
    image = stack(phantom, "CYX")
    tints = colours.channel_colours(2)
    plain = paint(image, 0, Box(0, 0, 160, 160), padding, tints)
    wide = paint(image, 0, Box(-20, -30, 200, 250), padding, tints)
    assert (wide[20:180, 30:190] == plain).all()
    assert plain[..., 0].max() > 0.9
    mode = {"reflect": "reflect", "periodic": "wrap"}.get(padding)
    full = np.pad(plain, [(20, 20), (30, 60), (0, 0)], mode) if mode else np.zeros_like(wide)
    dim = 0.4 * full + 0.16
    outside = np.ones(wide.shape[:2], bool)
    outside[20:180, 30:190] = False
    assert np.abs(wide - dim)[outside].max() < 1e-6


def test_picture_has_each_box_in_its_colour_where_it_belongs(phantom, tmp_path):
    subject = subject_of([stack(phantom, "CYX")], n_scales=2)
    indices = next([i] for i in range(25) if not _near_border(subject, i))
    plot_batch(subject.constructor, indices).savefig(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image.convert("RGB")) / 255
    plan = subject.plan(indices)
    (overview,) = overviews_of(plan, 2)
    view = overview.view(160, 160)
    layout = Layout(1, 2, 2, plan.patch_size, [view])
    left, top, width, _ = layout.overview(0)
    zoom = 100 * width / view.width
    for scale, box in enumerate(overview.boxes[0]):
        colour = np.array(to_rgb(colours.SCALE_COLOURS[scale]))
        y0, x0 = 100 * top + box.y * zoom, 100 * left + box.x * zoom
        y1, x1 = y0 + box.height * zoom, x0 + box.width * zoom
        for y, x in [(y0, (x0 + x1) / 2), (y1, x0 * 0.3 + x1 * 0.7), ((y0 + y1) / 2, x0)]:
            around = pixels[round(y) - 3 : round(y) + 4, round(x) - 3 : round(x) + 4]
            assert np.abs(around - colour).max(axis=-1).min() < 0.02, (scale, y, x)
        middle = pixels[round((y0 + y1) / 2), round((x0 + x1) / 2)]
        assert np.abs(middle - colour).max() > 0.1


def _near_border(subject, index):
    (overview,) = overviews_of(subject.plan([index]), 2)
    return overview.leaves(subject.images[0])


def test_explanation_speaks_of_what_is_there(phantom):
    subject = subject_of([stack(phantom, "CYX")])
    overviews = overviews_of(subject.plan(range(9)), 3)
    text = explanation(subject, overviews)
    assert "mirrored" in text
    assert "unweighted" in text
    assert "cut off" not in text
    plain = subject_of([stack(phantom, "CYX")], mode="basic")
    assert explanation(plain, overviews_of(plain.plan(range(9)), 1)) == ""
    # windows of 256 around an image of 64, and an image that no patch is from
    two = subject_of(
        [stack(phantom[:, :64, :64], "CYX"), stack(phantom, "CYX", "b.tif")], n_scales=4
    )
    of_first = [
        i for i in range(two.constructor.n_patches) if two.plan([i]).sources.image_idx[0, 0] == 0
    ]
    text = explanation(two, overviews_of(two.plan(of_first), 4))
    assert "cut off" in text
    assert text.endswith("None of these patches is from 1 other image.")


@pytest.mark.parametrize(
    ("length", "expected"), [(60, "a_long_name.tif, 160×160"), (20, "a_long_nam…, 160×160"),
                          (1, "a_long_…, 160×160")]
)  # fmt: skip
def test_a_title_keeps_the_size(length, expected, phantom):
    subject = subject_of([stack(phantom, "CYX", "a_long_name.tif")])
    (overview,) = overviews_of(subject.plan([0]), 1)
    assert title(subject, overview, length) == expected


@pytest.mark.parametrize(
    ("length", "titles"),
    [
        (60, ["structure 0: nuclei_of_plate_one_w1.tif, 160×160",
              "structure 1: nuclei_of_plate_one_w2.tif, 120×160"]),
        (35, ["structure 0: …e_one_w1.tif, 160×160", "structure 1: …e_one_w2.tif, 120×160"]),
        (1, ["structure 0: …_w1.tif, 160×160", "structure 1: …_w2.tif, 120×160"]),
    ],
)  # fmt: skip
def test_titles_of_structures_keep_the_end_ofnames(length, titles, phantom):
    named = [stack(phantom[0], "YX", "nuclei_of_plate_one_w1.tif"),
             stack(phantom[1, :120], "YX", "nuclei_of_plate_one_w2.tif")]  # fmt: skip
    subject = subject_of(named, mode="independent")
    overviews = overviews_of(subject.plan([0]), 1)
    assert [title(subject, overview, length) for overview in overviews] == titles


@pytest.mark.parametrize("n_views", [1, 2, 5])
@pytest.mark.parametrize(("n_inputs", "n_targets"), [(1, 0), (4, 2), (8, 6)])
@pytest.mark.parametrize("patch_size", [(64, 64), (16, 200), (200, 16)])
def test_nothing_overlaps(n_views, n_inputs, n_targets, patch_size):
    views = [Box(0, 0, 100 + 40 * i, 300 - 50 * i) for i in range(n_views)]
    layout = Layout(3, n_inputs, n_targets, patch_size, views)
    assert layout.width <= 16.001
    panels = [
        (layout.column(c), layout.row(r), layout.panel_width, layout.panel_height)
        for c in range(n_inputs + n_targets)
        for r in range(3)
    ]
    if n_targets:
        gaps = layout.column(n_inputs) - layout.column(n_inputs - 1) - layout.panel_width
        assert gaps > 0.3  # targets stand apart
    boxes = panels + [layout.overview(i) for i in range(n_views)]
    for i, (x, y, width, height) in enumerate(boxes):
        assert x >= 0
        assert x + width <= layout.width + 1e-9
        assert y + height <= layout.height + 1e-9
        for x2, y2, width2, height2 in boxes[:i]:
            apart = x2 + width2 <= x or x + width <= x2 or y2 + height2 <= y or y + height <= y2
            assert apart


def test_contrast_copes_with_any_values():
    for pixels in (
        np.zeros((5, 5)),
        np.full((5, 5), np.nan),
        np.array([[np.inf, 1.0], [0.0, np.nan]]),
        np.eye(40),
    ):
        low, high = colours.limits(pixels)
        assert high > low
        shown = colours.stretch(pixels, (low, high))
        assert shown.dtype == np.float32
        assert ((shown >= 0) & (shown <= 1)).all()
    assert colours.stretch(np.eye(40), colours.limits(np.eye(40))).max() == 1
    # rounding of a constant is nothing to show; a count of one among thousands is
    even = np.where(np.eye(40), np.float32(977.0002), np.float32(977))
    assert colours.stretch(even, colours.limits(even)).max() < 0.01
    counts = np.where(np.eye(40), 60001, 60000)
    assert colours.stretch(counts, colours.limits(counts)).max() == 1


def test_scale_colours_can_be_told_apart():
    found = np.array([to_rgb(colour) for colour in colours.SCALE_COLOURS])
    distances = np.abs(found[:, None] - found).sum(axis=-1) + 9 * np.eye(len(found))
    assert distances.min() > 0.3


STRIPES = np.array(colours._STRIPES)


def is_striped(rgb):
    """Which pixels (Y, X) have one of the colours of stripes."""
    return (np.abs(rgb[..., None, :] - STRIPES) < 1e-6).all(axis=-1).any(axis=-1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("n_channels", [1, 2, 4])
def test_what_is_not_finite_is_striped_and_nothing_else(value, n_channels):
    """Its colours are those of channels too, but no channel has both of them side by side."""
    pixels = np.random.default_rng(0).random((n_channels, 20, 31)).astype(np.float32)
    expected = np.zeros((20, 31), bool)
    expected[3:9, 4:17] = expected[19, 30] = True
    pixels[-1, expected] = value
    between = [colours.limits(channel) for channel in pixels]
    rgb = colours.overlay(pixels, between, colours.channel_colours(n_channels))
    np.testing.assert_array_equal(is_striped(rgb), expected)
    for colour in STRIPES:
        assert (rgb[3:9, 4:17] == colour).all(axis=-1).sum() > 30
    pixels[-1, expected] = 0
    plain = colours.overlay(pixels, between, colours.channel_colours(n_channels))
    np.testing.assert_array_equal(rgb[~expected], plain[~expected])


@pytest.mark.parametrize("shape", [(61, 80), (1301, 700), (2500, 5001)])
def test_no_pixel_that_is_not_finite_is_overlooked(shape):
    """A thinned out picture shows it too, large enough to be seen."""
    pixels = np.zeros(shape, np.float32)
    pixels[::2] = 5
    at = shape[0] - 2, 13
    pixels[at] = np.nan
    view = Box(-10, -20, shape[0] + 30, shape[1] + 25)
    rgb = paint(stack(pixels, "YX"), 0, view, "reflect", [(1, 1, 1)])
    step = colours.step_to_thin(view.height, view.width)
    place = tuple((pixel - first) // step for pixel, first in zip(at, view[:2], strict=True))
    striped = is_striped(rgb)
    assert striped[place]
    assert striped.sum() * 500**2 >= max(rgb.shape) ** 2
    assert striped.sum() < 600


def test_panels_and_notes_speak_of_what_is_not_finite(phantom):
    pixels = phantom.astype(np.float32)
    pixels[1, 40:44, 50:52] = np.nan
    subject = subject_of([stack(pixels, "CYX")])
    indices = range(subject.constructor.n_patches)
    plan, batch = subject.plan(indices), subject.constructor.construct_batch(indices)
    for make, of_batch in ((input_panels, batch.input), (target_panels, batch.target)):
        for panels, patch in zip(make(subject, plan, batch), of_batch, strict=True):
            for panel, shown in zip(panels, patch, strict=True):
                np.testing.assert_array_equal(is_striped(panel.rgb), ~np.isfinite(shown))
    assert not np.isfinite(batch.input).all()
    (overview,) = overviews_of(plan, subject.n_scales)
    assert title(subject, overview, 80) == "a.tif, 160×160, 8 not finite"
    assert "8 values are NaN or infinite" in explanation(subject, [overview], 8)
    assert "Stripes" not in explanation(subject, [overview])
