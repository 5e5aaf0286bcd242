"""Processes that are killed, and processes that write together."""

from __future__ import annotations

import json
import sys
import time

import memory
import numpy as np
import pytest
import writer
from forks import Fork
from written import (
    OPTIONS,
    SOURCES,
    make_images,
    make_predicted,
    make_store,
    pixels,
    together,
    whole,
    write_all,
)

from gpu_patch import open_images
from gpu_patch.predict.outputs import Shard
from gpu_patch.predict.outputs.ome_zarr.unfinished import UnfinishedImage
from gpu_patch.predict.outputs.ranks import Ranks

pytest.importorskip("zarr")


@pytest.fixture(autouse=True)
def _on_the_host(monkeypatch):
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")


def contents(folder):
    """Every file of the results."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What one process writes that nobody disturbs."""
    folder = tmp_path_factory.mktemp("expected")
    store = make_store(folder, SOURCES, **OPTIONS)
    for predicted in make_images(store.names).values():
        write_all(store, predicted)
    return contents(folder)


def start(out, rank=0, world_size=1, pause=0.0, *, resume=False):
    report = out.parent / f"{out.name}-{rank}.json"
    arguments = (out, report, rank, world_size, pause, resume)
    return Fork(writer.main, *arguments, errors=out.parent / f"errors-{time.monotonic_ns()}")


def ended(processes):
    """Wait for processes; what each reported."""
    reports = []
    for process in processes:
        assert process.wait() == 0, process.errors[-3000:]
        reports.append(json.loads(process.arguments[1].read_text()))
    return reports


def run(out, world_size=1, **options):
    return ended([start(out, rank, world_size, **options) for rank in range(world_size)])


def n_recorded(out):
    return len(list(out.glob(".*.partial/units/*"))) if out.exists() else 0


def kill_when(reached, processes):
    """Kill processes by SIGKILL as soon as something is so."""
    processes[0].wait_until(reached)
    for process in processes:
        process.kill()


def check_names(out, expected):
    """What has its name is complete."""
    for path in out.glob("[!.]*"):
        found = {f"{path.name}/{name}": data for name, data in contents(path).items()}
        assert found == {n: d for n, d in expected.items() if n.startswith(f"{path.name}/")}


@pytest.mark.parametrize(("n_units", "delay"), [(0, 0.0), (0, 0.01), (1, 0.0), (5, 0.01), (9, 0.0)])
def test_a_killed_run_leaves_nothing_at_the_name_and_goes_on(tmp_path, expected, n_units, delay):
    out = tmp_path / "out"

    def reached():
        if n_recorded(out) < n_units or not out.exists():
            return False
        time.sleep(delay)
        return True

    kill_when(reached, [start(out, pause=0.02)])
    check_names(out, expected)
    before = n_recorded(out)
    run(out, resume=True)
    assert contents(out) == expected
    assert before or n_units == 0


@pytest.mark.parametrize("n_runs", [1, 2])
def test_killed_again_and_again(tmp_path, expected, n_runs):
    """At moments that the clock chooses; each run goes on, and the last one ends.

    Of two at once, one is told that the other is at it.
    """
    out = tmp_path / "out"
    rng = np.random.default_rng(0)
    for attempt in range(6):
        processes = [start(out, pause=0.01, resume=True) for _ in range(n_runs)]
        until = time.monotonic() + rng.uniform(0.05, 0.45)
        while any(process.is_alive for process in processes) and time.monotonic() < until:
            time.sleep(0.001)
        for process in processes:
            status = process.kill()
            refused = n_runs > 1 and status == 1 and "BlockingIOError" in process.errors
            assert refused or status in (0, -9), (attempt, process.errors)
        if out.exists():
            check_names(out, expected)
    run(out, resume=True)
    assert contents(out) == expected
    assert not list(out.glob(".*"))


def test_killed_while_levels_are_made(tmp_path, expected):
    out = tmp_path / "out"
    finishing = out / ".b.ome.zarr.partial" / "finishing"
    kill_when(finishing.exists, [start(out, pause=0.005)])
    assert not (out / "b.ome.zarr").exists()
    assert n_recorded(out) == 3 * 10  # all of them: the levels alone were missing
    (report,) = run(out, resume=True)
    assert contents(out) == expected
    assert report["n_units"] == 3


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_write_what_one_does(tmp_path, expected, world_size):
    out = tmp_path / "out"
    reports = run(out, world_size, pause=0.002)
    assert contents(out) == expected
    assert all(report["n_units"] > 5 for report in reports)
    chunks = [
        [name.split(".partial")[0] + name.rpartition("/image/")[2]
         for name in report["made"] if "/0/c/" in name]
        for report in reports
    ]  # fmt: skip
    everything = [name for made in chunks for name in made]
    assert all(chunks)
    assert len(everything) == len(set(everything))  # none by two ranks, and none twice
    assert len(everything) == sum("/0/c/" in name for name in expected)


@pytest.mark.parametrize(("first", "then"), [(3, 2), (2, 1), (1, 3)])
def test_other_processes_go_on(tmp_path, expected, first, then):
    out = tmp_path / "out"
    processes = [start(out, rank, first, pause=0.02) for rank in range(first)]
    kill_when(lambda: n_recorded(out) >= 12, processes)
    check_names(out, expected)
    reports = run(out, then, resume=True)
    assert contents(out) == expected
    assert sum(report["n_units"] for report in reports) <= 10 + 30 + 3 - 12


def test_a_rank_that_comes_late_goes_by_what_was_there_before(tmp_path, expected):
    """Rank 0 has begun long before rank 1, and may not write before."""
    out = tmp_path / "out"
    first = start(out, 0, 2)
    first.wait_until(lambda: list(out.glob(".*.ranks/0.json")))
    time.sleep(0.3)
    assert n_recorded(out) == 0
    ended([first, start(out, 1, 2)])
    assert contents(out) == expected


def test_ranks_do_not_wait_for_ever(tmp_path):
    options = {"world_size": 2, "timeout": 0.2}
    with pytest.raises(TimeoutError, match=r"rank 0 of 2 gave up after 0\.2 s.*ranks \[1\] have"):
        make_store(tmp_path / "a.zarr", ["a"], rank=0, **options)
    with pytest.raises(TimeoutError, match=r"rank 1 of 2 gave up .* rank 0 has not begun"):
        make_store(tmp_path / "a.zarr", ["a"], rank=1, **options)


def test_what_stops_rank_0_stops_all(tmp_path):
    write_all(make_store(tmp_path / "a.zarr", ["a"]), make_predicted("YX"))
    found = together(
        lambda rank: make_store(tmp_path / "a.zarr", ["a"], rank=rank, world_size=3, timeout=30), 3
    )
    assert [type(error) for error in found] == [FileExistsError, RuntimeError, RuntimeError]
    assert "rank 0 could not begin: FileExistsError: " in str(found[1])


def test_what_an_earlier_run_said_is_not_believed(tmp_path):
    """Its files name ranks of the same numbers."""
    folder = tmp_path / "ranks"
    for said in ("old", "new"):
        found = together(
            lambda rank, said=said: Ranks(folder, Shard(rank, 3), 30).share(lambda: said), 3
        )
        assert found == [said] * 3
    assert folder.exists()
    # an old rank 0 alone is no answer
    with pytest.raises(TimeoutError, match="rank 0 has not begun"):
        Ranks(folder, Shard(1, 3), 0.2).share(lambda: None)


def test_a_rank_of_an_earlier_run_does_not_count(tmp_path):
    """It was there; the one of this run comes later."""
    folder = tmp_path / "ranks"
    folder.mkdir()
    (folder / "2.json").write_text('"a rank of an earlier run"')

    def share(rank):
        time.sleep(0.5 * (rank == 2))
        return Ranks(folder, Shard(rank, 3), 2.0).share(lambda: "new")

    assert together(share, 3) == ["new"] * 3


def test_a_rank_that_stops_is_missed(tmp_path):
    predicted = make_predicted("TYX")

    def write(rank):
        store = make_store(tmp_path / "a.zarr", ["a"], rank=rank, world_size=2, timeout=0.5)
        output = store.open(predicted)
        for sample in range(1, 3) if rank == 0 else ():
            output.write(sample, 0, pixels(predicted, sample))
        if rank == 0:
            output.finish()
            try:
                store.wait()
            finally:
                store.abandon()

    error, _ = together(write, 2)
    assert isinstance(error, TimeoutError)
    assert "a not finished; resume=True goes on" in str(error)
    assert not (tmp_path / "a.zarr").exists()
    store = make_store(tmp_path / "a.zarr", ["a"], resume=True)
    assert store.done("a") == {(1, 0), (2, 0)}
    output = store.open(predicted)
    output.write(0, 0, pixels(predicted, 0))
    assert np.array_equal(open_images(output.finish()).image_stacks[0].data, whole(predicted))


def two_stores(out, **options):
    return together(
        lambda rank: make_store(out, ["a"], rank=rank, world_size=2, timeout=30, **options), 2
    )


def test_ranks_go_by_the_same_units_whatever_was_written_since(tmp_path):
    predicted = make_predicted("TYX")
    output = make_store(tmp_path / "a.zarr", ["a"]).open(predicted)
    output.write(1, 0, pixels(predicted, 1))
    output.close()
    first, second = two_stores(tmp_path / "a.zarr", resume=True)
    first.open(predicted).write(0, 0, pixels(predicted, 0))
    assert second.done("a") == first.done("a") == {(1, 0)}


@pytest.mark.parametrize("world_size", [1, 2])
def test_an_empty_folder_stays_where_another_rank_may_write(tmp_path, world_size):
    out = tmp_path / "made" / "out"
    found = together(
        lambda rank: make_store(
            out, ["a", "b"], format="ome-zarr", rank=rank, world_size=world_size, timeout=30
        ),
        world_size,
    )
    for file in sorted(out.rglob("*"), reverse=True):  # what the ranks told each other
        file.rmdir() if file.is_dir() else file.unlink()
    for store in found:
        store.abandon()
    assert out.exists() == (world_size > 1)


def test_one_rank_alone_finishes(tmp_path, monkeypatch):
    """Both find that nothing is missing."""
    alive, n_pieces = UnfinishedImage.alive, []

    def slow(work):
        alive(work)
        n_pieces.append(1)
        time.sleep(0.3)

    monkeypatch.setattr(UnfinishedImage, "alive", slow)
    predicted = make_predicted("TYX", X=600)
    stores = two_stores(tmp_path / "a.zarr")
    outputs = [store.open(predicted) for store in stores]
    for sample in range(3):
        outputs[sample % 2].write(sample, 0, pixels(predicted, sample))
    assert together(lambda rank: outputs[rank].finish(), 2) == [tmp_path / "a.zarr"] * 2
    assert len(n_pieces) == 2
    assert together(lambda rank: stores[rank].wait(), 2) == [None, None]
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zarr"]


def test_what_could_not_be_written_is_not_recorded(tmp_path, monkeypatch):
    from zarr.storage import LocalStore

    predicted = make_predicted("TYX")
    output = make_store(tmp_path / "a.zarr", ["a"]).open(predicted)
    output.write(0, 0, pixels(predicted, 0))

    async def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "set", fail)
        with pytest.raises(OSError, match="No space left"):
            output.write(1, 0, pixels(predicted, 1))
    output.close()
    assert make_store(tmp_path / "a.zarr", ["a"], resume=True).done("a") == {(0, 0)}


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc, of Linux")
@pytest.mark.parametrize(
    ("suffix", "most"), [(".npy", 16), (".ome.tif", 16), (".ome.zarr", 64)], ids=lambda v: str(v)
)
def test_writing_takes_little_memory(tmp_path, suffix, most):
    """An image of 256 MiB; levels included."""
    report = tmp_path / "report"
    fork = Fork(memory.write, tmp_path, suffix, report, errors=tmp_path / "errors")
    assert fork.wait() == 0, fork.errors
    assert int(report.read_text()) < most << 20
