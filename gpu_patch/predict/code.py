"""What functions and classes are made of, without what changes whenever they run."""

from __future__ import annotations

import dis
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, NamedTuple

_MUTATORS = {
    *("add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem"),
    *("popleft", "remove", "reverse", "setdefault", "sort", "update"),
}
"""Methods that change lists, dicts, sets and deques."""

_CALLED = ("__call__", "forward")
"""Methods that a model is run by."""

_PACKAGES = ("site-packages", "dist-packages")
"""Folders of what is installed, and not the user's own code."""


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
    written_attributes : set of str
        Attributes, of whatever, that it assigns or changes likewise.
    """

    globals: set[str]
    attributes: set[str]
    written: set[str]
    changed: set[str]
    written_attributes: set[str]

    @classmethod
    def of(cls, code: CodeType) -> Names:
        """Return those of some code and all code inside it."""
        found = cls(set(), set(), set(), set(), set())
        for part in nested(code):
            found._add(part)
        return found

    def joined(self, other: Names) -> Names:
        """Return those of two functions."""
        return Names(*(one | another for one, another in zip(self, other, strict=True)))

    def _add(self, code: CodeType) -> None:
        # all that begins at one place of the source is one chain, as in `counts.of[0].append`
        roots: dict[Any, str] = {}
        chains: dict[Any, list[str]] = {}
        for step in dis.get_instructions(code):
            place = step.positions and (step.positions.lineno, step.positions.col_offset)
            kind, name = step.opname, step.argval
            if kind in ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF"):
                roots[place] = name
                chains[place] = []
                if kind != "LOAD_DEREF":
                    self.globals.add(name)
            elif kind in ("LOAD_ATTR", "LOAD_METHOD"):
                self.attributes.add(name)
                if name in _MUTATORS:
                    self._change(place, roots, chains)
                chains.setdefault(place, []).append(name)
            elif kind in ("STORE_GLOBAL", "STORE_NAME", "STORE_DEREF"):
                self.written.add(name)
            elif kind == "STORE_ATTR":
                self.written_attributes.add(name)
            elif kind == "STORE_SUBSCR":
                self._change(place, roots, chains)
            elif kind.startswith("LOAD_FAST"):
                roots.pop(place, None)
                chains[place] = []

    def _change(self, place: Any, roots: dict[Any, str], chains: dict[Any, list[str]]) -> None:
        if place is None:
            return
        if chain := chains.get(place):
            self.written_attributes.add(chain[-1])
        elif place in roots:
            self.changed.add(roots[place])


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
    def of(cls, kind: type, *called: str) -> Attributes:
        """Return those of a class, whose objects are run by methods of some names, else by any."""
        names: dict[str, Names] = {}
        for base in kind.__mro__:
            for name, found in vars(base).items():
                if isinstance(found, FunctionType) and not is_installed(home(found)):
                    own = Names.of(found.__code__)
                    # one of a base may be called by that of the class
                    names[name] = own.joined(names[name]) if name in names else own
        reached = [name for name in called or _CALLED if name in names]
        reached = reached or [name for name in names if not name.startswith("__")]
        for name in reached:  # which grows
            reached += [n for n in names[name].attributes if n in names and n not in reached]
        return cls(
            {attribute for name in reached for attribute in names[name].written_attributes},
            {attribute for found in names.values() for attribute in found.attributes},
        )


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
    return found.partition("+")[0]  # without what it was built for


def package(module: str | None) -> str:
    """Return the name of an installed module, with the version of its package where known."""
    return f"{module} {version_of(module or '')}".rstrip()
