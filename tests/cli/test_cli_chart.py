"""The picture of gpu-patch bench."""

from itertools import combinations

import pytest
from PIL import Image

from gpu_patch.cli import main
from gpu_patch.cli.bench import report
from gpu_patch.cli.bench.workloads import Workload, curves, workloads_of
from gpu_patch.plots import bench
from gpu_patch.plots.bench import FLOOR, Curves

pytest.importorskip("matplotlib")

MACHINE = {"cpu": "Some CPU of a long name @ 3 GHz", "gpu_patch": "0.1.0", "date": "2026-01-02"}
GPU = {**MACHINE, "gpu": "NVIDIA Some GPU", "copy_bytes_per_second": 4.3e12}
OTHERS = ("CuPy, gather and matmul", "cupyx.scipy.ndimage per patch", "careamics, one CPU core")


def cpu_row(workload):
    seconds = 1e-6 * 4**workload.n_scales
    return {
        **workload._asdict(),
        "window_side": workload.window_side,
        "seconds_per_patch": seconds,
        "numpy_seconds_per_patch": None,
        "threads_seconds_per_patch": None,
        "careamics_seconds_per_patch": 20 * seconds,
        "floor_seconds_per_patch": seconds / 4,
    }


def gpu_row(workload):
    return {
        **workload._asdict(),
        "window_side": workload.window_side,
        "elapsed_seconds": 1e-4,
        "device_seconds": 5e-5,
        "floor_seconds": 2e-5,
        "alternatives": [
            *({"name": name, "elapsed_seconds": 1e-3 * (i + 1)} for i, name in enumerate(OTHERS)),
            {"name": "torch", "skipped": "it is not here"},
        ],
    }


def cpu_document(workloads):
    machine = {**MACHINE, "copy_bytes_per_second": 1.3e10}
    return {"machine": machine, "rows": [cpu_row(workload) for workload in workloads]}


def lines_of(axes):
    """The points of each line, by its label."""
    return {line.get_label(): line.get_xydata().round(3).tolist() for line in axes.lines}


def test_panels_of_what_bench_measures_for_it():
    panels = [Curves("multichannel", None, 32), Curves("multichannel", 4, None)]
    assert bench.panels(curves(quick=False)) == panels
    assert bench.panels(curves(quick=True)) == panels


def test_panels_have_two_points_or_more():
    workloads = workloads_of(["pred", "basic", "multichannel-3d"], [1, 2], [8, 32])
    assert bench.panels(workloads) == [
        *(Curves("pred", None, 32), Curves("pred", 2, None)),
        *(Curves("basic", 0, None), Curves("multichannel-3d", 3, None)),
    ]
    with pytest.raises(ValueError, match="--plot: needs two numbers of scales, or two batch"):
        bench.panels([Workload("pred", 2, 32), Workload("basic", 0, 32)])


def test_points_of_the_cpu():
    document = cpu_document([*workloads_of(["pred"], [3, 1], [32]), Workload("pred", 1, 8)])
    over_scales, over_batch = bench.plot_bench(document).axes
    assert lines_of(over_scales) == {
        "gpu_patch": [[64, 1e6 / 4], [256, 1e6 / 64]],
        "careamics": [[64, 1e6 / 80], [256, 1e6 / 64 / 20]],
        FLOOR: [[64, 1e6], [256, 1e6 / 16]],
    }
    assert [place for place, _ in lines_of(over_batch)["gpu_patch"]] == [8, 32]
    for axes in (over_scales, over_batch):
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    labels = {label.get_text() for label in over_scales.get_xticklabels()}
    assert labels == {"1\n(64)", "3\n(256)"}


def test_points_of_a_gpu():
    rows = [gpu_row(Workload("basic", 0, size)) for size in (32, 64)]
    (axes,) = bench.plot_bench({"machine": GPU, "rows": rows}).axes
    assert lines_of(axes) == {
        "gpu_patch": [[32, 32e4], [64, 64e4]],
        FLOOR: [[32, 32 * 5e4], [64, 64 * 5e4]],
        **{
            name: [[32, round(32e3 / n, 3)], [64, round(64e3 / n, 3)]]
            for n, name in enumerate(OTHERS, 1)
        },
    }


def test_without_careamics():
    document = cpu_document(curves(quick=True))
    for row in document["rows"]:
        row["careamics_seconds_per_patch"] = None
    assert set(lines_of(bench.plot_bench(document).axes[0])) == {"gpu_patch", FLOOR}


@pytest.mark.parametrize("kind", ["cpu", "gpu", "many"])
def test_no_text_covers_another_or_is_cut(kind):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    workloads = curves(quick=False)
    if kind == "many":
        workloads = workloads_of(["pred", "multichannel-3d"], [1, 2, 3], [1, 32, 1024])
    document = cpu_document(workloads)
    if kind == "gpu":
        document = {"machine": GPU, "rows": [gpu_row(workload) for workload in workloads]}
    figure = bench.plot_bench(document)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
    # the limits cut ticks off that are beyond them
    boxes = {text: text.get_window_extent() for text in texts}
    boxes = {text: box for text, box in boxes.items() if box.width > 0 and _is_shown(text, figure)}
    assert len(boxes) > 15
    width, height = canvas.get_width_height()
    for box in boxes.values():
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= width
        assert box.y1 <= height
    for a, b in combinations(boxes, 2):
        assert not boxes[a].overlaps(boxes[b]), (a.get_text(), b.get_text())


def _is_shown(text, figure):
    """Whether it is no label of a tick that is not drawn."""
    for axes in figure.axes:
        for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            for tick in axis.get_major_ticks():
                if text in (tick.label1, tick.label2):
                    inside = limits[0] <= tick.get_loc() <= limits[1]
                    return inside and text.get_visible()
    return True


def test_the_command(tmp_path, capsys, monkeypatch):
    asked = []

    def measured(settings):
        asked.append(settings["workloads"])
        yield {**MACHINE, "careamics": "0.3.5", "copy_bytes_per_second": 1e10, **CPU}
        for workload in settings["workloads"]:
            yield {**cpu_row(workload), **MEMORY}

    monkeypatch.setattr(report, "measured", measured)
    file = tmp_path / "bench.png"
    assert main(["bench", "--plot", str(file)]) == 0
    assert asked[0] == curves(quick=False)
    assert capsys.readouterr().out.endswith(f"picture  {file}\n")
    with Image.open(file) as picture:
        assert picture.size[0] > 1000
    # what is asked for comes first
    options = ["--constructors", "pred", "--scales", "2", "--batch-size", "1", "2"]
    assert main(["bench", "--plot", str(file), *options]) == 0
    assert asked[1] == workloads_of(["pred"], [2], [1, 2])


CPU = {
    "n_cores": 2,
    "kernels": None,
    "n_threads": 2,
    "load": None,
    "python": "3.12",
    "numpy": "2.4",
    "commit": None,
}
MEMORY = {"peak_bytes": 3, "output_bytes": 2, "largest_window_bytes": 1}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--plot nosuch/a.png", ["--plot", "nosuch"]),
        ("--plot a.xyz", ["--plot", ".png", "'a.xyz'"]),
        ("--plot a.png --constructors basic", ["--plot", "two batch sizes"]),
        ("--plot a.png --batch-size 0", ["--batch-size", "at least 1"]),
    ],
)
def test_wrong_arguments_before_anything_is_measured(options, words, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)  # where a picture could be written
    monkeypatch.setattr(report, "measured", lambda settings: pytest.fail("it measures"))
    assert main(["bench", *options.split()]) == 2
    error = capsys.readouterr().err
    assert all(word in error for word in words)
