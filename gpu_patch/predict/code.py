"""What the code of functions and classes reads and changes; what changes is no part of a model."""

from __future__ import annotations

import dis
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, NamedTuple

_MUTATORS = {
    *("add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem"),
    *("popleft", "remove", "reverse", "setdefault", "sort", "update"),
}
"""Methods that change lists, dicts, sets and deques."""

_CALLED = ("__call__", "forward")
"""Methods that run a model."""

_PACKAGES = ("site-packages", "dist-packages")
"""Folders of installed packages; what is elsewhere is the user's own code."""


class Names(NamedTuple):
    """What the code of a function does with names.

    Attributes
    ----------
    globals : set of str
        Global names that it reads.
    attributes : set of str
        Attributes, of whatever, that it reads.
    written : set of str
        Names outside of it that it assigns.
    changed : set of str
        Names outside of it whose values it changes, by an item or a method.
    of_others : set of (str, str)
        Names outside of it and attributes of their values that it assigns, or changes likewise.
    of_own : set of str
        Attributes of what is its own, such as a method's object, that it assigns or changes.
    """

    globals: set[str]
    attributes: set[str]
    written: set[str]
    changed: set[str]
    of_others: set[tuple[str, str]]
    of_own: set[str]

    @classmethod
    def of(cls, code: CodeType) -> Names:
        """Return what some code, and all code inside it, does with names."""
        found = cls(set(), set(), set(), set(), set(), set())
        for part in nested(code):
            found._add(part)
        return found

    def joined(self, other: Names) -> Names:
        """Return what two functions do with names."""
        return Names(
            self.globals | other.globals,
            self.attributes | other.attributes,
            self.written | other.written,
            self.changed | other.changed,
            self.of_others | other.of_others,
            self.of_own | other.of_own,
        )

    def _add(self, code: CodeType) -> None:
        # instructions of one place in the source belong together, as those of `counts.of[0].append`
        chains: dict[Any, _Chain] = {}
        for step in dis.get_instructions(code):
            place = step.positions and (step.positions.lineno, step.positions.col_offset)
            kind, name = step.opname, step.argval
            chain = chains.get(place, _Chain(None, ()))
            if kind in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF"):
                chains[place] = _Chain(name, ())
                if kind != "LOAD_DEREF":
                    self.globals.add(name)
            elif kind.startswith("LOAD_FAST"):
                chains[place] = _Chain(None, ())
            elif kind in ("LOAD_ATTR", "LOAD_METHOD"):
                self.attributes.add(name)
                if name in _MUTATORS:
                    self._change(chain)
                chains[place] = _Chain(chain.root, (*chain.attributes, name))
            elif kind in ("STORE_GLOBAL", "STORE_NAME", "STORE_DEREF"):
                self.written.add(name)
            elif kind == "STORE_ATTR":
                self._change(_Chain(chain.root, (*chain.attributes, name)))
            elif kind == "STORE_SUBSCR":
                self._change(chain)

    def _change(self, chain: _Chain) -> None:
        if chain.root is None:
            self.of_own.update(chain.attributes[-1:])
        elif chain.attributes:
            self.of_others.add((chain.root, chain.attributes[-1]))
        else:
            self.changed.add(chain.root)


class _Chain(NamedTuple):
    """A name outside of a function, None for what is its own, and attributes that follow."""

    root: str | None
    attributes: tuple[str, ...]


def nested(code: CodeType) -> Iterator[CodeType]:
    """Yield some code and all code inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from nested(constant)


class Attributes(NamedTuple):
    """What the methods of a class do with attributes.

    Attributes
    ----------
    state : set of str
        Those that running an object changes, which is not what it is made of.
    read : set of str
        Those that any of the user's own methods reads.
    """

    state: set[str]
    read: set[str]

    @classmethod
    def of(cls, kind: type, called: Iterable[str]) -> Attributes:
        """Return what a class does, whose objects are run by the methods `called`."""
        names: dict[str, Names] = {}
        for base in kind.__mro__:
            for name, found in vars(base).items():
                if isinstance(found, FunctionType) and not is_installed(home(found)):
                    own = Names.of(found.__code__)
                    # a method of the class may call that of a base
                    names[name] = own.joined(names[name]) if name in names else own
        reached = [name for name in sorted({*called, *_CALLED}) if name in names]
        for name in reached:  # the list grows meanwhile
            reached += [n for n in names[name].attributes if n in names and n not in reached]
        state = {attribute for name in reached for attribute in names[name].of_own}
        state |= {each for name in reached for _, each in names[name].of_others}  # of the class
        return cls(state, {each for found in names.values() for each in found.attributes})


def home(function: FunctionType) -> str | None:
    """Return the module that a function was written in; its own `__module__` may be another's."""
    return function.__globals__.get("__name__")


def is_installed(module: str | None) -> bool:
    """Tell whether a module is of Python, of an installed package or of this one."""
    top = (module or "__main__").partition(".")[0]
    if top in ("__main__", "__mp_main__"):
        return False
    if top in sys.stdlib_module_names or top == __name__.partition(".")[0]:
        return True
    found = sys.modules.get(top)
    if found is None:
        return False
    places = [getattr(found, "__file__", None), *getattr(found, "__path__", [])]
    return any(part in _PACKAGES for place in places if place for part in Path(place).parts)


def version_of(module: str) -> str:
    """Return the version of the package of a module; "" where it says none."""
    found = str(getattr(sys.modules.get(module.partition(".")[0]), "__version__", ""))
    return found.partition("+")[0]  # what follows says what it was built for, such as "+cu126"


def package(module: str | None) -> str:
    """Return the name of an installed module, with the version of its package where known."""
    return f"{module} {version_of(module or '')}".rstrip()
