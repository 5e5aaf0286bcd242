"""What is known of models: which are the same, which are not, and which cannot be told."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import os
import subprocess
import sys
import textwrap
import threading
import types
from pathlib import Path

import numpy as np
import pytest
from pixels import distinct

import gpu_patch
from gpu_patch import predict
from gpu_patch.predict.identity import identify

FACTOR = 2.0
TABLE = np.arange(6, dtype=np.float32)
N_CALLS = 0


def scaled(x):
    return x * FACTOR


def through(x):
    return scaled(x) + 1


def run(source, **names):
    """What a piece of code defines as `model`, in a module of its own."""
    scope = {"__name__": "models_of_a_user", "np": np, "functools": functools, **names}
    exec(textwrap.dedent(source), scope)
    return scope["model"]


def parts(model):
    found = identify(model)
    assert not found.unknown
    return found.parts


class Scale:
    """Counts and notes what it is given, which is not what it is made of."""

    def __init__(self, factor):
        self.factor, self.n_calls, self.log = factor, 0, {"sizes": []}

    def __call__(self, x):
        self._note(x)
        return x * self.factor

    def _note(self, x):
        self.n_calls += 1
        self.log["sizes"].append(x.shape)
        Scale.last = self

    def plain(self, x):
        return x * self.factor


@dataclasses.dataclass
class Settings:
    sigma: float
    names: tuple = ("a", "b")


# ---- functions ---------------------------------------------------------------------------------

# pairs of models that differ in the part that is named
OTHERS = {
    "code": ("lambda x: x + 1", "lambda x: x + 2", "code"),
    "a constant": ("lambda x: x * 0.1", "lambda x: x * 0.2", "code"),
    "an attribute": ("lambda x: x.max()", "lambda x: x.min()", "code"),
    "order": ("lambda x, y=1: x - y", "lambda y, x=1: x - y", "code"),
    "a default": ("lambda x, k=1: x + k", "lambda x, k=2: x + k", "default of k"),
    "a keyword": ("lambda x, *, k=1: x + k", "lambda x, *, k=2: x + k", "default of k"),
    "a global": ("lambda x: x + a", "lambda x: x + b", "code"),
    "a set": ("lambda x: x in {'a', 'b'}", "lambda x: x in {'a', 'c'}", "code"),
    "inside": ("lambda x: [y for y in x if y > 1]", "lambda x: [y for y in x if y > 2]", "code"),
}


@pytest.mark.parametrize("pair", OTHERS.values(), ids=OTHERS)
def test_functions_of_other_code(pair):
    *sources, part = pair
    first, second = (parts(run(f"model = {source}", a=1, b=1)) for source in sources)
    assert first[part] != second[part]
    assert parts(run(f"model = {sources[0]}", a=1, b=1)) == first


VALUES = {
    "number": (2, 3),
    "int or float": (2, 2.0),
    "bool or int": (True, 1),
    "text": ("a", "b"),
    "text or bytes": ("a", b"a"),
    "none": (None, 0),
    "list": ([1, [2, 3]], [1, [2, 4]]),
    "nesting": ([1, [2], 3], [1, [2, 3]]),
    "dict": ({"a": 1, "b": 2}, {"a": 2, "b": 1}),
    "set": ({"a", "b"}, {"a", "c"}),
    "array": (np.arange(5), np.arange(1, 6)),
    "data type": (np.zeros(2, np.float32), np.zeros(2, np.int32)),
    "shape": (np.zeros((2, 3)), np.zeros((3, 2))),
    "numpy number": (np.float32(1), np.float32(2)),
    "objects": (np.array([1, "a"], object), np.array([1, "b"], object)),
    "function": (scaled, through),
    "built in": (math.sin, math.cos),
    "ufunc": (np.sin, np.cos),
    "method of a text": ("a".join, "b".join),
    "class": (Scale, Settings),
    "object": (Scale(2), Scale(3)),
    "dataclass": (Settings(1.0), Settings(2.0)),
    "method": (Scale(2).plain, Scale(3).plain),
    "partial": (functools.partial(scaled, 1), functools.partial(scaled, 2)),
    "keyword": (functools.partial(scaled, x=1), functools.partial(scaled, x=2)),
    "path": (Path("a"), Path("b")),
    "numpy type": (np.dtype("u2"), np.dtype("u1")),
    "normalization": (
        gpu_patch.feed.Normalization.mean_std(1, 2),
        gpu_patch.feed.Normalization.mean_std(1, 3),
    ),
}  # fmt: skip


@pytest.mark.parametrize("pair", VALUES.values(), ids=VALUES)
def test_what_a_function_closes_over_or_reads(pair):
    def closing(value):
        return lambda x: (x, value)

    for make, name in (
        (closing, "value"),
        (lambda value: run("def model(x): return x, setting", setting=value), "setting"),
        (lambda value: run("def model(x, k=setting): return x", setting=value), "default of k"),
        (lambda value: functools.partial(scaled, k=value), "argument k"),
    ):
        first, second = parts(make(pair[0])), parts(make(pair[1]))
        assert {key for key in first if first[key] != second[key]} == {name}
        assert parts(make(pair[0])) == first


def test_equal_values_are_equal_wherever_they_lie():
    def closing(value):
        return lambda x: (x, value)

    pixels = distinct((7, 9), "uint16")
    assert parts(closing(pixels)) == parts(closing(np.asfortranarray(pixels)))
    assert parts(closing({"a": 1, "b": 2})) == parts(closing({"b": 2, "a": 1}))


def test_functions_that_others_call_count(monkeypatch):
    before = parts(through)
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 3.0)
    assert {k for k in before if parts(through)[k] != before[k]} == {"scaled"}
    monkeypatch.undo()
    assert parts(through) == before
    monkeypatch.setattr(sys.modules[__name__], "scaled", lambda x: x * FACTOR + 0)
    assert parts(through) != before


def test_recursion_and_values_that_hold_themselves_come_to_an_end():
    def down(n):
        return down(n - 1) if n else ring

    ring = [1]
    ring.append(ring)
    assert parts(down) == parts(down)


def test_decorated_functions_are_known_by_what_they_wrap():
    def decorated(factor):
        @functools.wraps(scaled)
        def model(x):
            return scaled(x) * factor

        return functools.lru_cache(model)

    assert parts(decorated(2)) == parts(decorated(2)) != parts(decorated(3))


def counting_global(x):
    global N_CALLS
    N_CALLS += 1
    return x + TABLE.sum()


def counting_cell():
    n = 0

    def model(x):
        nonlocal n
        n += 1
        return x * 2

    return model


def noting(change):
    def make():
        sizes, counts, numbers = [], {"n": 0}, itertools.count()
        places, lock = np.zeros(3), threading.Lock()
        random = np.random.default_rng(0)

        def model(x):
            with lock:
                if change == "list":
                    sizes.append(x.shape)
                elif change == "dict":
                    counts["n"] += 1
                elif change == "iterator":
                    next(numbers)
                elif change == "array":
                    places[1] += 1
                else:
                    x = x + random.random()
            return x

        return model

    return make


RUNNING = {
    "global": lambda: counting_global,
    "cell": counting_cell,
    "object": lambda: Scale(3),
    "method": lambda: Scale(3).__call__,
    **{kind: noting(kind) for kind in ("list", "dict", "iterator", "array", "random")},
}


@pytest.mark.parametrize("make", RUNNING.values(), ids=RUNNING)
def test_running_a_model_does_not_make_it_another_one(make):
    model = make()
    before = parts(model)
    for size in (3, 4):
        model(np.ones((size, 1, 4, 4), np.float32))
    assert parts(model) == before == parts(make())


def test_what_is_set_from_outside_counts():
    model = Scale(3)
    before = parts(model)
    model.factor = 4
    assert {k for k in before if parts(model)[k] != before[k]} == {"factor"}


class Loaded:
    """Gets its factor from a method that a model does not call."""

    def __init__(self):
        self.factor, self.n_calls = None, 0

    def load(self, factor):
        self.factor = factor
        return self

    def run(self, x):
        self.n_calls += 1
        return x * self.factor


def test_what_other_methods_set_counts():
    def inside(model):
        return lambda x: model.run(x)

    def assigning(model):
        def function(x):
            model.last = x
            x.factor = None  # of another object
            return model.run(x)

        return function

    for make in (lambda model: model.run, inside, assigning):
        model = Loaded().load(2)
        before = parts(make(model))
        model.n_calls, model.last = 7, 1
        if make is assigning:
            assert parts(make(model)) == before
        del model.last
        assert parts(make(model)) == before != parts(make(Loaded().load(3)))


def test_attributes_of_one_name_are_told_apart():
    class Outer:
        def __init__(self, scale):
            self.inner, self.scale = types.SimpleNamespace(scale=scale), 0

        def __call__(self, x):
            self.scale = x.max()  # not that of what it holds
            return x * self.inner.scale

    first = parts(Outer(2.0))
    assert parts(Outer(2.0)) == first
    assert {k for k in first if parts(Outer(3.0))[k] != first[k]} == {"inner"}


def test_modules_of_the_user_count_by_their_file(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)

    def digest(text):
        (tmp_path / "helpers_of_mine.py").write_text(text)
        sys.modules.pop("helpers_of_mine", None)
        return parts(run("import helpers_of_mine as h\ndef model(x): return h.f(x)"))["h"]

    try:
        assert digest("def f(x): return x") != digest("def f(x): return x + 1")
        assert digest("def f(x): return x") == digest("def f(x): return x")
    finally:
        sys.modules.pop("helpers_of_mine", None)


def test_installed_packages_count_by_their_version(monkeypatch):
    before = parts(run("def model(x): return np.mean(x)"))
    monkeypatch.setattr(np, "__version__", "1.0")
    assert parts(run("def model(x): return np.mean(x)"))["np"] != before["np"]


def test_every_process_finds_the_same():
    """Texts are hashed by another number in each."""
    program = """
        import sys
        sys.path.insert(0, sys.argv[1])
        import numpy as np
        import test_identity
        from gpu_patch.predict.identity import identify
        settings = {"a": {"x", "y", "z"}, ("b", 1): np.arange(4)}
        def model(x, k={"u", "v"}):
            return x in {"p", "q", "r"} or test_identity.through(settings)
        print(sorted(identify(model).parts.items()), identify(test_identity.Scale(2)))
    """
    said = {
        subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program), str(Path(__file__).parent)],
            env={
                **os.environ,
                "PYTHONHASHSEED": seed,
                "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path]),
            },
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(said) == 1
    assert "scaled" not in said  # but something


def test_what_nothing_is_known_of_is_named():
    class Session(np.vectorize):  # stands for a class of an installed package
        pass

    Session.__module__ = "numpy"
    session = Session(lambda x: x)
    kind = f"numpy.{Session.__qualname__}"
    assert identify(lambda x: session(x)).unknown == (f"session ({kind})",)
    assert identify(session).unknown == (f"model ({kind})",)


# ---- going on ----------------------------------------------------------------------------------

TILES = {"tile_size": (32, 32), "overlaps": (8, 8), "progress": False, "batch_size": 2}


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """Runs that stop after some rows, whatever their model is; returns what predicts."""
    pytest.importorskip("zarr")
    from gpu_patch.predict.results import Results

    image = gpu_patch.ImageStack.from_array(distinct((200, 70), "uint16"), "YX", device="cpu")
    options = {**TILES, "out": tmp_path / "out.ome.zarr", "chunk_size": (32, 64)}
    write = Results.write

    def breaking(self, image, sample, start, rows):
        if start > 90:
            raise OSError("no space left")
        write(self, image, sample, start, rows)

    def go(model, **more):
        return predict(image, model, **{**options, **more})

    def begin(model, **more):
        with monkeypatch.context() as patch:
            patch.setattr(Results, "write", breaking)
            with pytest.raises(OSError, match="no space"):
                go(model, **more)
        return go

    return begin


def test_another_function_does_not_go_on(stopped):
    def closing(factor):
        return lambda x: x * factor

    go = stopped(closing(2))
    for model, words in (
        (closing(3), r"its model is another one, by its factor\. Give the same"),
        (lambda x: x * 2, "its model is another one, by its code"),
        (scaled, "its model is another one, by its code, factor, FACTOR"),
    ):
        with pytest.raises(ValueError, match=f"cannot be gone on with: {words}"):
            go(model, resume=True)
    go(closing(2), resume=True)
    with pytest.raises(FileExistsError, match="is complete, but its model is another one"):
        go(closing(3), resume=True)


def test_a_model_that_counts_goes_on(stopped):
    model = Scale(2)
    stopped(model)(model, resume=True)
    assert model.n_calls > 0


def test_the_name_of_a_model_decides_where_it_is_given(stopped):
    go = stopped(scaled, model_id="weights of May")
    with pytest.raises(
        ValueError, match=r"its model is another one \(weights of May; now of June\)"
    ):
        go(scaled, resume=True, model_id="of June")
    with pytest.raises(ValueError, match="its model was told by model_id, that of this run not"):
        go(scaled, resume=True)
    go(lambda x: x * 2.0, resume=True, model_id="weights of May")


@pytest.mark.parametrize(("model_id", "error"), [("", ValueError), (3, TypeError)])
def test_names_of_models_that_cannot_be(stopped, model_id, error):
    with pytest.raises(error, match="model_id must"):
        stopped(scaled)(scaled, model_id=model_id, resume=True)


def test_a_warning_says_what_cannot_be_told(stopped):
    model = np.vectorize(lambda x: x * 2.0, otypes=[np.float32])
    go = stopped(model)  # without a word: nothing is gone on with
    with pytest.warns(UserWarning, match=r"nothing is known of model \(numpy\.vectorize\)") as said:
        go(model, resume=True)
    assert len(said) == 1
    assert said[0].filename == __file__


OTHER_SETTINGS = {
    "n_samples": (3, "its n_samples is 2, that of this run 3"),
    "normalization": (
        gpu_patch.feed.Normalization.mean_std(1, 3),
        r"its normalization\['input'\]\['stds'\] is \[2\.0\], .* \[3\.0\]",
    ),
    "padding_mode": ("wrap", "its padding_mode is 'reflect', that of this run 'wrap'"),
    "tile_size": ((40, 32), r"its tile_size is \[32, 32\], that of this run \[40, 32\]"),
}


@pytest.mark.filterwarnings("ignore:the standard deviation is 0")
@pytest.mark.parametrize("name", OTHER_SETTINGS)
def test_other_settings_do_not_go_on(stopped, name):
    value, words = OTHER_SETTINGS[name]
    options = {"n_samples": 2, "multiscale_count": 2}
    options["normalization"] = gpu_patch.feed.Normalization.mean_std(1, 2)
    model = lambda x: x[:, :1]  # noqa: E731
    go = stopped(model, **options)
    with pytest.raises(ValueError, match=words):
        go(model, **{**options, name: value}, resume=True)
    go(model, **options, resume=True)


def test_another_version_of_the_package_does_not_go_on(stopped, monkeypatch):
    go = stopped(scaled)
    monkeypatch.setattr(gpu_patch, "__version__", "99.1")
    with pytest.raises(ValueError, match=r"its version of gpu_patch is '.*', that of this run '99"):
        go(scaled, resume=True)
