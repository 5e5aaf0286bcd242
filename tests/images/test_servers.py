"""Zarr on servers: real ones on the loopback address, with faults."""

import gc
import multiprocessing
import os
import pickle
import shutil
import socket
import time
import traceback
from datetime import timedelta
from urllib.request import Request, urlopen

import numpy as np
import pytest
from file_server import serving
from formats import numbered, write_ome_zarr

from gpu_patch import (
    MultiChannelTargetMsPatchConstr,
    StratifiedPatching,
    open_images,
    predict,
    residency,
)
from gpu_patch.cli import main
from gpu_patch.images import loading

zarr = pytest.importorskip("zarr")
pytest.importorskip("obstore")

DATA = numbered("TCYX", Y=70, X=90)
KINDS = {
    "0.4": {"version": "0.4"},
    "0.5": {},
    "sharded": {"shards": (1, 1, 32, 48)},
    "index first": {"shards": (1, 1, 32, 48)},
}
QUICK = {
    "client_options": {"read_timeout": "300ms", "connect_timeout": "300ms"},
    "retry_config": {
        "max_retries": 1,
        "backoff": {
            "init_backoff": timedelta(milliseconds=1),
            "max_backoff": timedelta(milliseconds=2),
            "base": 2,
        },
    },
}


@pytest.fixture(autouse=True)
def _on_the_host(monkeypatch):
    monkeypatch.setenv("GPU_PATCH_DEVICE", "cpu")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def server(tmp_path):
    write_ome_zarr(tmp_path / "a.zarr", DATA, "TCYX")
    with serving(tmp_path) as server:
        yield server


def refuses(error, words, url, **options):
    gc.collect()
    before = len(residency().stacks)
    with pytest.raises(error, match=words) as caught:
        open_images(url, **{"storage_options": QUICK, **options})
    gc.collect()
    assert len(residency().stacks) == before
    return caught.value


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("by_chunk", [False, True])
def test_any_region(tmp_path, kind, by_chunk):
    if kind == "index first":
        codec = zarr.codecs.ShardingCodec(chunk_shape=(1, 1, 16, 24), index_location="start")
        group = zarr.open_group(tmp_path / "a.zarr", mode="w")
        array = group.create_array(
            "0", shape=DATA.shape, dtype="u2", chunks=(1, 1, 32, 48), serializer=codec,
            compressors=None, dimension_names=list("tcyx"),
        )  # fmt: skip
        array[:] = DATA
        name = "a.zarr/0"
    else:
        write_ome_zarr(tmp_path / "a.zarr", DATA, "TCYX", **KINDS[kind])
        name = "a.zarr"
    with serving(tmp_path) as server:
        images = open_images(f"{server.url}/{name}", by_chunk=by_chunk)
        for t, (y, x) in enumerate([(0, 0), (3, 17), (37, 50)]):
            found = images.extract_patch(0, t, (y, x), (33, 40))
            assert np.array_equal(found, DATA[t, :, y : y + 33, x : x + 40])
        chunks = [(n, h.get("range")) for _, n, h in server.requests if "/0." in n or "/c/" in n]
        assert len(chunks) > 4
        assert len(chunks) == len(set(chunks)) or by_chunk
    assert str(images.image_stacks[0].source) == f"{server.url}/{name}"
    assert images.image_stacks[0].files == ()


def test_a_chunk_is_asked_for_once(server, tmp_path):
    open_images(f"{server.url}/a.zarr")
    chunks = [name for _, name, _ in server.requests if "/c/" in name]
    assert len(chunks) == len(set(chunks)) == 3 * 2 * 5 * 4
    shutil.rmtree(tmp_path / "a.zarr")
    write_ome_zarr(tmp_path / "a.zarr", DATA, "TCYX", shards=(1, 1, 32, 48))
    server.requests.clear()
    open_images(f"{server.url}/a.zarr")
    ranges = [(n, h.get("range")) for _, n, h in server.requests if "/c/" in n]
    assert len(ranges) == len(set(ranges))


def test_requests_are_in_flight_together(server):
    server.latency = 0.05
    open_images(f"{server.url}/a.zarr")
    assert server.most_in_flight >= 16
    images = open_images(f"{server.url}/a.zarr", by_chunk=True)
    server.most_in_flight = 0
    strategy = StratifiedPatching(images.shapes, (16, 16), seed=0)
    mixing = [(0.3, 0.7), (0.3, 0.7)]

    def batch(images):
        constructor = MultiChannelTargetMsPatchConstr(
            strategy, images, 2, "reflect", mixing, 0.1, seed=1
        )
        return constructor.construct_batch(range(32), epoch=0)

    found = batch(images)
    assert server.most_in_flight >= 16
    server.latency = 0
    assert np.array_equal(found.input, batch(open_images(f"{server.url}/a.zarr")).input)


def test_chunks_of_several_pieces_are_in_flight_together(server, monkeypatch):
    monkeypatch.setattr(loading, "_FAR_BYTES", 4 * 768)  # of four chunks each
    server.latency = 0.05
    found = open_images(f"{server.url}/a.zarr").image_stacks[0].data
    assert np.array_equal(found, DATA)
    assert server.most_in_flight >= 16
    server.fault = lambda name: "cut" if name.endswith("c/1/1/2/1") else None
    refuses(OSError, "c/1/1/2/1: the answer was cut off", f"{server.url}/a.zarr")


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_metadata_that_are_consolidated_are_used(server, tmp_path):
    for version, name in (("0.4", ".zmetadata"), ("0.5", "zarr.json")):
        path = write_ome_zarr(tmp_path / f"c{version}.zarr", DATA, "TCYX", version=version)
        zarr.consolidate_metadata(path)
        server.requests.clear()
        open_images(f"{server.url}/c{version}.zarr", level=1)
        asked = [n for _, n, _ in server.requests if n.endswith((".zarray", ".zattrs", "json"))]
        assert not [name for name in asked if "/1/" in name], name


def test_plates_series_and_groups(tmp_path):
    plate = zarr.open_group(tmp_path / "plate.zarr", mode="w", zarr_format=3)
    plate.attrs["ome"] = {"version": "0.5", "plate": {"wells": [{"path": "A/1"}]}}
    plate.create_group("A/1").attrs["ome"] = {
        "version": "0.5", "well": {"images": [{"path": "0"}, {"path": "1"}]},
    }  # fmt: skip
    for field in "01":
        write_ome_zarr(tmp_path / "plate.zarr" / "A" / "1" / field, DATA + int(field), "TCYX")
    series = zarr.open_group(tmp_path / "b.zarr", mode="w", zarr_format=2)
    series.attrs["bioformats2raw.layout"] = 3
    for i in "01":
        write_ome_zarr(tmp_path / "b.zarr" / i, DATA + int(i), "TCYX", version="0.4")
    with serving(tmp_path) as server:
        for name in ("plate.zarr", "b.zarr"):
            found = open_images(f"{server.url}/{name}", scene="all")
            assert [int(stack.data[0, 0, 0, 0]) for stack in found.image_stacks] == [0, 1]
        refuses(ValueError, "it is a group", f"{server.url}/plate.zarr/A")


def test_missing_chunks_are_told_from_failed_requests(server, tmp_path, capsys):
    url = f"{server.url}/a.zarr"
    (tmp_path / "a.zarr/0/c/1/0/2/1").unlink()
    refuses(ValueError, r"a\.zarr cannot be read as Zarr: its chunk c/1/0/2/1 is missing", url)
    expected = DATA.copy()
    expected[1, 0, 32:48, 24:48] = 0
    for by_chunk in (False, True):
        images = open_images(url, allow_missing_chunks=True, by_chunk=by_chunk)
        assert np.array_equal(images.extract_patch(0, 1, (0, 0), (70, 90)), expected[1])
    assert main(["info", "--check-values", url]) == 2  # known when it is read: HTTP has no lists
    assert "its chunk c/1/0/2/1 is missing" in capsys.readouterr().out
    assert main(["info", "--check-values", "--allow-missing-chunks", url]) == 0
    server.fault = lambda name: 503 if name.endswith("c/1/0/2/1") else None
    for missing in (False, True):
        words = r"a\.zarr/0/c/1/0/2/1: the server fails, again and again .*503"
        refuses(OSError, words, url, allow_missing_chunks=missing)


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("by_chunk", [False, True])
def test_faults_that_pass(server, tmp_path, sharded, by_chunk):
    shutil.rmtree(tmp_path / "a.zarr")
    options = {"shards": (1, 1, 32, 48)} if sharded else {}
    write_ome_zarr(tmp_path / "a.zarr", DATA, "TCYX", **options)
    seen = set()

    def once(name):
        if name in seen:
            return None
        seen.add(name)
        return {0: 500, 1: "cut"}.get(len(seen) % 5)

    server.fault = once
    images = open_images(f"{server.url}/a.zarr", by_chunk=by_chunk)
    for t in range(3):
        assert np.array_equal(images.extract_patch(0, t, (0, 0), (70, 90)), DATA[t])
    assert len(seen) > 5


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (500, OSError, "the server fails, again and again"),
        (403, PermissionError, "the server denies access"),
        (401, PermissionError, "the server denies access"),
        ("cut", OSError, "the answer was cut off, again and again"),
    ],
)
@pytest.mark.parametrize("at", ["zarr.json", "0/c/2/1/4/3"])
def test_faults_that_last(server, fault, error, words, at):
    server.fault = lambda name: fault if name == f"a.zarr/{at}" else None
    if at == "zarr.json" and fault in (401, 403):
        server.fault = lambda name: fault  # else it could be the other format
    caught = refuses(error, rf"a\.zarr/.*: {words}", f"{server.url}/a.zarr")
    assert caught.errno is None
    server.fault = lambda name: None
    assert open_images(f"{server.url}/a.zarr").shapes == [(3, 2, 70, 90)]


def test_slow_answers(server):
    sleep = lambda: time.sleep(1)  # noqa: E731
    server.fault = lambda name: sleep if "/c/2/1" in name else None
    refuses(OSError, r"c/2/1/\d/\d: there is no answer in time", f"{server.url}/a.zarr")


@pytest.mark.parametrize("sharded", [False, True])
def test_chunks_that_are_far_too_long_are_not_fetched(server, tmp_path, sharded):
    shutil.rmtree(tmp_path / "a.zarr")
    options = {"shards": (1, 1, 16, 24)} if sharded else {}
    write_ome_zarr(tmp_path / "a.zarr", DATA, "TCYX", **options)
    (tmp_path / "a.zarr/0/c/1/0/2/1").write_bytes(bytes(1_000_000))
    words = r"0/c/1/0/2/1 has 1,000,000 bytes, for pixels of far fewer"
    refuses(ValueError, words, f"{server.url}/a.zarr")


def test_nothing_there(server, capsys):
    words = r"b\.zarr: there is no Zarr, none of the files zarr\.json"
    refuses(FileNotFoundError, words, f"{server.url}/b.zarr")
    assert main(["info", f"{server.url}/b.zarr"]) == 2
    assert "there is no Zarr" in capsys.readouterr().out
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/a.zarr"
    refuses(OSError, "nothing answers there: the connection is refused", url)
    refuses(OSError, "no such host is known", "http://nowhere.invalid/a.zarr")


def test_servers_without_parts_of_files(server, tmp_path):
    server.has_ranges = False
    shutil.rmtree(tmp_path / "a.zarr")
    write_ome_zarr(tmp_path / "a.zarr", DATA, "TCYX", shards=(1, 1, 32, 48))
    refuses(OSError, "the server gives whole files alone", f"{server.url}/a.zarr")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host/a.zarr", "by s3, http, https, gs, az, found the address 'ftp://host/a.zarr'"),
        ("https://host/a.zarr?token=hidden", r"https://host/a\.zarr has a query.*storage_options"),
        ("https://host/*.zarr", "must name a host and one image"),
        ("s3:///a.zarr", "must name a host and one image"),
        ("https://host/a.ome.tif", "is on a server, where Zarr alone is read: download it"),
        ("https://me:hidden@host/a.png", "https://host/a.png is on a server"),
    ],
)
def test_addresses_that_are_refused(url, words):
    caught = refuses(ValueError, words, url)
    assert "hidden" not in str(caught)


def test_wrong_options(server):
    refuses(TypeError, "storage_options must be", f"{server.url}/a.zarr", storage_options=[1])
    words = "storage_options are not what obstore takes.*nonsense"
    refuses(ValueError, words, "s3://bucket/a.zarr", storage_options={"nonsense": "1"})
    refuses(TypeError, "cache_folder must be", f"{server.url}/a.zarr", cache_folder=3)


def test_credentials_are_sent_and_never_shown(server, tmp_path, capsys):
    host = server.url.removeprefix("http://")
    url = f"http://me:hid%64en@{host}/a.zarr"
    images = open_images(url, by_chunk=True)
    sent = [h.get("authorization") for _, _, h in server.requests]
    assert set(sent) == {"Basic bWU6aGlkZGVu"}
    shown = [
        repr(images),
        str(images.image_stacks[0].source),
        str(images.origins),
        str(residency()),
    ]
    tiles = {"tile_size": (16, 16), "overlaps": (4, 4), "progress": False}
    predict(images, lambda patches: patches, out=tmp_path / "b.ome.zarr", **tiles)
    shown += [path.read_text() for path in (tmp_path / "b.ome.zarr").rglob("*.json")]
    assert main(["info", url, "--json"]) == 0
    shown.append(capsys.readouterr().out)
    server.fault = lambda name: 403
    caught = refuses(PermissionError, "denies access", url)
    shown += traceback.format_exception(caught)
    for secret in ("hidden", "hid%64en", "bWU6aGlkZGVu"):
        assert not [text for text in shown if secret in text]
    assert np.array_equal(open_images(tmp_path / "b.ome.zarr").image_stacks[0].data, DATA)


def test_cache_folder(server, tmp_path):
    url, cache = f"{server.url}/a.zarr", tmp_path / "cache"
    open_images(url, cache_folder=cache)
    server.requests.clear()
    for by_chunk in (False, True):
        images = open_images(url, cache_folder=cache, by_chunk=by_chunk)
        assert np.array_equal(images.extract_patch(0, 1, (0, 0), (70, 90)), DATA[1])
    assert not [name for _, name, _ in server.requests if "/c/" in name]
    # other metadata, another image
    (tmp_path / "a.zarr").rename(tmp_path / "old.zarr")
    write_ome_zarr(tmp_path / "a.zarr", DATA[:, :, :60] + 1, "TCYX")
    found = open_images(url, cache_folder=cache).image_stacks[0].data
    assert np.array_equal(found, DATA[:, :, :60] + 1)


def _read_in_child(images, pipe):
    try:
        pipe.send(images.extract_patch(0, 1, (3, 5), (20, 30)).tolist())
    except OSError as error:
        pipe.send(str(error))


@pytest.mark.parametrize("method", ["spawn", "fork"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_other_processes(server, method):
    images = open_images(f"{server.url}/a.zarr", by_chunk=True)
    images.extract_patch(0, 0, (0, 0), (9, 9))
    context = multiprocessing.get_context(method)
    ours, theirs = context.Pipe()
    child = context.Process(target=_read_in_child, args=(images, theirs))
    child.start()
    assert ours.poll(60)
    found = ours.recv()
    child.join(10)
    if method == "fork":
        assert "forked after images of servers were read: start workers with" in found
    else:
        assert np.array_equal(found, DATA[1, :, 3:23, 5:35])
    assert pickle.loads(pickle.dumps(images.image_stacks[0].data.reader))


@pytest.mark.parametrize("out", ["s3://bucket/a.ome.zarr", "https://host/a"])
def test_results_are_not_written_to_servers(server, out):
    images = open_images(f"{server.url}/a.zarr")
    with pytest.raises(
        ValueError, match=rf"out must be on this machine, found the address '{out}'"
    ):
        predict(images, lambda p: p, out=out, tile_size=(16, 16), overlaps=(4, 4))


@pytest.fixture(scope="module")
def moto():
    pytest.importorskip("moto")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


def put(endpoint, folder, bucket):
    """Copy a folder into a bucket, whose objects anyone may read."""

    def ask(name, content=None):
        request = Request(f"{endpoint}/{name}", content, method="PUT")
        request.add_header("x-amz-acl", "public-read")
        request.add_header("Content-Type", "application/octet-stream")
        urlopen(request).close()

    ask(bucket)
    for path in folder.rglob("*"):
        if path.is_file():
            ask(f"{bucket}/{path.relative_to(folder.parent)}", path.read_bytes())


@pytest.mark.parametrize("kind", ["0.4", "0.5", "sharded"])
@pytest.mark.parametrize("by_chunk", [False, True])
def test_s3(tmp_path, moto, monkeypatch, kind, by_chunk, capsys):
    folder = write_ome_zarr(tmp_path / "a.zarr", DATA, "TCYX", **KINDS[kind])
    bucket = f"{kind.replace('.', '')}{int(by_chunk)}bucket"
    put(moto, folder, bucket)
    url = f"s3://{bucket}/a.zarr"
    images = open_images(url, by_chunk=by_chunk, storage_options={"endpoint": moto})
    for t in range(3):
        assert np.array_equal(images.extract_patch(0, t, (0, 0), (70, 90)), DATA[t])
    # the environment's endpoint and credentials, which are not shown
    for name, value in {
        "ENDPOINT_URL": moto, "ACCESS_KEY_ID": "key-id-1", "SECRET_ACCESS_KEY": "hush-hush",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"AWS_{name}", value)
    assert main(["info", url]) == 0
    shown = capsys.readouterr().out
    assert url in shown
    assert "hush" not in shown
    words = rf"{url[:-6]}none.zarr: there is no Zarr"
    patient = {"storage_options": {"retry_config": QUICK["retry_config"]}}
    refuses(FileNotFoundError, words, url.replace("a.zarr", "none.zarr"), **patient)
    refuses(OSError, "nowhere/a.zarr", "s3://nowhere/a.zarr", **patient)
    # a chunk that is missing is known from the list
    request = Request(f"{moto}/{bucket}/a.zarr/{'0/0.0.0.0' if kind == '0.4' else '0/c/0/0/0/0'}",
                      method="DELETE")  # fmt: skip
    urlopen(request).close()
    assert main(["info", url]) == 2
    assert "were never written, the first is" in capsys.readouterr().out
    refuses(ValueError, "is missing", url, **patient)


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (500, OSError, "the server fails, again and again"),
        (503, OSError, "the server fails, again and again"),
        (403, PermissionError, "the server denies access"),
        ("cut", OSError, "the answer was cut off, again and again"),
        ("slow", OSError, "there is no answer in time"),
        (404, ValueError, "its chunk c/2/1/4/3 is missing"),
    ],
)
def test_faults_of_s3(tmp_path, fault, error, words):
    write_ome_zarr(tmp_path / "bucket" / "a.zarr", DATA, "TCYX")
    with serving(tmp_path) as server:
        sleep = lambda: time.sleep(1)  # noqa: E731
        given = sleep if fault == "slow" else fault
        server.fault = lambda name: given if name.endswith("c/2/1/4/3") else None
        options = {**QUICK, "endpoint": server.url, "access_key_id": "key-id-1",
                   "secret_access_key": "hush-hush"}  # fmt: skip

        def read(by_chunk):
            asked = {"by_chunk": by_chunk, "storage_options": options}
            images = open_images("s3://bucket/a.zarr", **asked)
            images.extract_patch(0, 0, (0, 0), (70, 90))
            images.extract_patch(0, 2, (0, 0), (70, 90))

        for by_chunk in (False, True):
            with pytest.raises(error, match=words) as caught:
                read(by_chunk)
            assert "hush" not in "".join(traceback.format_exception(caught.value))
        assert all(h["authorization"].startswith("AWS4-HMAC") for _, _, h in server.requests)
