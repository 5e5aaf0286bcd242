"""What tells a model from others: its code, its settings and its weights, as far as they show."""

from __future__ import annotations

import datetime
import enum
import io
import logging
import random
import re
import sys
import weakref
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from functools import cached_property, partial
from itertools import chain
from pathlib import PurePath
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GenericAlias,
    MethodType,
    ModuleType,
    SimpleNamespace,
)
from typing import Any, NamedTuple

import numpy as np

from gpu_patch.predict import modules
from gpu_patch.predict.code import Attributes, Names, home, is_installed, package
from gpu_patch.predict.digests import combined, of_array, of_module

_PLAIN = (
    *(type(None), bool, int, float, complex, str, bytes, type(Ellipsis), type(NotImplemented)),
    *(PurePath, np.dtype, slice, range, GenericAlias, datetime.date, datetime.time),
    *(datetime.timedelta, datetime.tzinfo),
)
"""Types whose `repr` says all about a value."""

_CHANGING = (
    *(random.Random, np.random.Generator, np.random.RandomState, np.random.BitGenerator),
    *(io.IOBase, logging.Logger, weakref.ref),
)
"""Types whose values differ in each process, and do not count."""

_CONTAINERS = (list, dict, set, bytearray, deque, np.ndarray)
_NOT_CALLED = {"__dict__", "__weakref__", "__doc__", "__module__", "_abc_impl"}


class _Use(NamedTuple):
    """What a function does with a value: attributes that it changes, and methods that it calls."""

    changed: frozenset[str] = frozenset()
    called: frozenset[str] = frozenset()


_UNUSED = _Use()


class Identity(NamedTuple):
    """What is known of a model.

    Attributes
    ----------
    parts : dict of str to str
        A digest of each part, by its name.
    unknown : tuple of str
        Names and kinds of what nothing is known of.
    """

    parts: dict[str, str]
    unknown: tuple[str, ...]


def identify(model: Any) -> Identity:
    """Tell what a model is made of; the same in every process.

    Known are a torch module's classes, settings and weights, wherever these are; a function's code,
    defaults and what it closes over or reads from its module; partial functions, methods, and
    objects of the user's own classes. Code is known as Python compiles it; that of installed
    packages by name and version. What running a model changes does not count, such as a counter of
    its calls, and neither do generators of random numbers.

    Parameters
    ----------
    model : torch.nn.Module or callable
        As in `predict`.
    """
    digester = _Digester()
    parts = digester.parts(model)
    if parts is None:
        parts = {"model": digester.digest(model, "model")}
    return Identity(
        {name: digest.hex()[:16] for name, digest in parts.items()}, tuple(digester.unknown)
    )


class _Digester:
    """Makes digests of values of any type."""

    def __init__(self) -> None:
        self.unknown: dict[str, None] = {}
        self._known: dict[int, tuple[object, bytes]] = {}
        self._within: list[int] = []
        self._attributes: dict[tuple[type, frozenset[str]], Attributes] = {}

    def digest(self, value: Any, name: str, use: _Use = _UNUSED) -> bytes:
        """Return the digest of a value; `name` goes to `unknown` where nothing is known of it."""
        if isinstance(value, _PLAIN):
            return combined(type(value).__qualname__, repr(value))
        if id(value) in self._within:  # a value that contains itself
            return combined("within", str(self._within.index(id(value))))
        if id(value) not in self._known:
            self._within.append(id(value))
            try:
                # the value is kept alive: another one could get the same `id`
                self._known[id(value)] = value, self._digest(value, name, use)
            finally:
                self._within.pop()
        return self._known[id(value)][1]

    def parts(self, value: Any, use: _Use = _UNUSED) -> dict[str, bytes] | None:
        """Return digests of the parts of a module, function or object; None for others."""
        torch = sys.modules.get("torch")
        if torch is not None and isinstance(value, torch.nn.Module):
            return self._torch_module(value, use)
        if torch is not None and isinstance(value, torch.jit.ScriptFunction):
            return {"code": combined(modules.text(value))}
        if isinstance(value, FunctionType):
            return self._function(value)
        if isinstance(value, MethodType):
            name, owner = value.__func__.__name__, value.__self__
            own = self.parts(owner, _Use(called=frozenset([name])))
            if own is None:
                own = {"object": self.digest(owner, type(owner).__name__)}
            return {**own, "method": self.digest(value.__func__, name)}
        if isinstance(value, partial):
            given = {**{str(i): each for i, each in enumerate(value.args)}, **value.keywords}
            inner = self.parts(value.func)
            if inner is None:
                inner = {"function": self.digest(value.func, "function")}
            return {
                **inner,
                **{f"argument {key}": self.digest(given[key], key) for key in sorted(given)},
            }
        if isinstance(value, (type, ModuleType)):
            return None
        if callable(wrapped := getattr(value, "__wrapped__", None)):  # by functools, or jax.jit
            return {"function": self.digest(wrapped, "function")}
        return self._object(value, use) if _is_own(value) else None

    def _digest(self, value: Any, name: str, use: _Use) -> bytes:
        kind = type(value)
        if (found := self._simple(value, name)) is not None:
            return found
        if isinstance(value, CodeType):
            return self._code(value)
        if isinstance(value, ModuleType):
            return of_module(value)
        if isinstance(value, type):
            return self._class(value, use)
        if isinstance(value, (property, cached_property, classmethod, staticmethod)):
            functions = [getattr(value, way, None) for way in ("fget", "fset", "func", "__func__")]
            return combined(kind.__name__, *(self.digest(each, name) for each in functions))
        if isinstance(value, (BuiltinFunctionType, np.ufunc)):
            own = getattr(value, "__self__", None)
            known = own is None or isinstance(own, ModuleType)
            return combined("built in", value.__name__, b"" if known else self.digest(own, name))
        if (parts := self.parts(value, use)) is not None:
            return combined("parts", *_flat(parts))
        if hasattr(kind, "__get__"):  # such as those that a class has for its slots
            return combined("descriptor", kind.__qualname__)
        self.unknown[f"{name} ({kind.__module__}.{kind.__qualname__})"] = None
        return combined("unknown", kind.__qualname__)

    def _simple(self, value: Any, name: str) -> bytes | None:
        """Return the digest of data and containers of it; None for what has code."""
        kind = type(value)
        if isinstance(value, enum.Enum):
            return combined("enum", kind.__qualname__, value.name)
        if isinstance(value, re.Pattern):
            return combined("pattern", repr(value.pattern), str(value.flags))
        if isinstance(value, (tuple, list, deque)):
            items = [self.digest(item, f"{name}[{i}]") for i, item in enumerate(value)]
            return combined("tuple" if isinstance(value, tuple) else "list", *items)
        if isinstance(value, Mapping):
            pairs = [
                (self.digest(key, name), self.digest(item, f"{name}[{key!r}]"))
                for key, item in value.items()
            ]
            return combined("dict", *chain.from_iterable(sorted(pairs)))
        if isinstance(value, (set, frozenset)):
            return combined("set", *sorted(self.digest(item, name) for item in value))
        if isinstance(value, bytearray):
            return combined("bytearray", bytes(value))
        if modules.is_place(value):  # a model is the same wherever it is
            return combined("place")
        if modules.is_dtype(value):
            return combined("dtype", repr(value))
        if (found := of_array(value)) is not None:
            return found
        if isinstance(value, np.ndarray):
            return combined("objects", self.digest(value.tolist(), name))
        if isinstance(value, _CHANGING) or modules.is_changing(value) or hasattr(kind, "__next__"):
            return combined("changing", kind.__qualname__)
        return None

    def _code(self, code: CodeType) -> bytes:
        numbers = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
        names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
        return combined(
            "code",
            code.co_code,
            code.co_exceptiontable,
            repr((numbers, names)),
            *(self.digest(constant, "constant") for constant in code.co_consts),
        )

    def _function(self, function: FunctionType) -> dict[str, bytes]:
        """Return the parts of a function; those of an installed one are what it closes over."""
        code = function.__code__
        closure = {}
        for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
            try:
                closure[name] = cell.cell_contents
            except ValueError:  # not assigned yet
                continue
        if is_installed(home(function)):
            about = combined(package(home(function)), function.__code__.co_qualname)
            with self._quiet():
                return {"function": about, **self._values(closure)}
        names = Names.of(code)
        scope = function.__globals__
        values = {name: scope[name] for name in sorted(names.globals) if name in scope}
        values |= {name: each for name, each in closure.items() if name != "__class__"}
        defaults = dict(
            zip(reversed(code.co_varnames[: code.co_argcount]),
                reversed(function.__defaults__ or ()), strict=False)
        )  # fmt: skip
        defaults |= function.__kwdefaults__ or {}
        used = {
            name: self.digest(
                each,
                name,
                _Use(
                    frozenset(own for root, own in names.of_others if root == name),
                    frozenset(names.attributes),
                ),
            )
            for name, each in values.items()
            if name not in names.written
            and not (name in names.changed and isinstance(each, _CONTAINERS))
        }
        return {
            "code": self._code(code),
            **{f"default of {k}": self.digest(v, k) for k, v in sorted(defaults.items())},
            **used,
        }

    def _class(self, kind: type, use: _Use) -> bytes:
        if is_installed(kind.__module__):
            return combined("class", package(kind.__module__), kind.__qualname__)
        state = use.changed | self._attributes_of(kind, use).state
        members = {
            name: member
            for name, member in sorted(vars(kind).items())
            if name not in state and _is_member(kind, name, member)
        }
        bases = [self.digest(base, base.__name__, use) for base in kind.__bases__]
        return combined("class", kind.__qualname__, *bases, *_flat(self._values(members)))

    def _object(self, value: Any, use: _Use) -> dict[str, bytes]:
        kind = type(value)
        state = use.changed | self._attributes_of(kind, use).state
        found = dict(getattr(value, "__dict__", {}))
        for base in kind.__mro__:
            slots = vars(base).get("__slots__", ())
            for name in [slots] if isinstance(slots, str) else slots:
                if hasattr(value, name):
                    found[name] = getattr(value, name)
        kept = {name: found[name] for name in sorted(found) if name not in state}
        return {"class": self.digest(kind, kind.__name__, use), **self._values(kept)}

    def _torch_module(self, model: Any, use: _Use) -> dict[str, bytes]:
        code: list[str | bytes] = []
        settings: list[str | bytes] = []
        weights: list[str | bytes] = []
        for name, part in modules.named_parts(model):
            kind = type(part)
            attributes = self._attributes_of(kind, use)
            code += [name, self.digest(kind, kind.__name__, use), modules.text(part)]
            code += [self.digest(hook, f"{name} hook") for hook in modules.hooks(part)]
            state = use.changed | attributes.state
            found = modules.settings(part, attributes.read)
            kept = {key: each for key, each in sorted(found.items()) if key not in state}
            with self._quiet():  # trainers and loggers need not be known
                settings += [name, str(part.training), *_flat(self._values(kept))]
            for key, tensor in modules.tensors(part):
                weights += [f"{name}.{key}", self.digest(tensor, f"{name}.{key}")]
        return {
            "code": combined(*code),
            "settings": combined(*settings),
            "weights": combined(*weights),
        }

    def _values(self, values: Mapping[str, Any]) -> dict[str, bytes]:
        return {name: self.digest(value, name) for name, value in values.items()}

    def _attributes_of(self, kind: type, use: _Use) -> Attributes:
        key = kind, use.called
        if key not in self._attributes:
            self._attributes[key] = Attributes.of(*key)
        return self._attributes[key]

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Forget what turns out to be unknown meanwhile."""
        before = dict(self.unknown)
        try:
            yield
        finally:
            self.unknown = before


def _flat(parts: Mapping[str, bytes]) -> Iterator[str | bytes]:
    for name, digest in parts.items():
        yield from (name, digest)


def _is_own(value: object) -> bool:
    """Tell whether a value is an object of the user's own class, or a plain one."""
    kind = type(value)
    own = not is_installed(kind.__module__) or kind.__module__.startswith("gpu_patch.")
    return own or is_dataclass(value) or isinstance(value, SimpleNamespace)


def _is_member(kind: type, name: str, member: object) -> bool:
    """Tell whether a class was given a member, and not made with it."""
    if name in _NOT_CALLED:
        return False
    if not name.startswith("__"):
        return True
    made = is_dataclass(kind) and getattr(member, "__code__", None) is not None
    written = isinstance(member, (FunctionType, property, classmethod, staticmethod))
    return written and not (made and member.__code__.co_filename == "<string>")  # type: ignore[attr-defined]
