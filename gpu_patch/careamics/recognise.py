"""What is careamics' own, told by names, so that nothing here imports it."""

from __future__ import annotations

from collections.abc import Sequence

from gpu_patch.checks import shorten


def careamics_class(obj: object, names: Sequence[str]) -> type | None:
    """Return the first class of an object that is careamics' and has one of the names."""
    for kind in type(obj).__mro__:
        if kind.__name__ in names and kind.__module__.partition(".")[0] == "careamics":
            return kind
    return None


def replaced(obj: object, base: type) -> list[str]:
    """Return the members of `base` that its subclasses have their own of, but for `__init__`."""
    mro = type(obj).__mro__
    own = {name: member for kind in mro[: mro.index(base)] for name, member in vars(kind).items()}
    return sorted(
        name
        for name, member in own.items()
        if hasattr(base, name)
        and (callable(member) or isinstance(member, (property, classmethod, staticmethod)))
        and (name in ("__getitem__", "__len__") or not name.startswith("__"))
    )


def check_nothing_replaced(name: str, obj: object, base: type) -> None:
    """Refuse an argument whose class has members of its own in the place of `base`'s."""
    if members := replaced(obj, base):
        raise TypeError(
            f"{name} must behave as careamics' {base.__name__}, but {type(obj).__name__} has its "
            f"own {', '.join(members)}, which would be lost"
        )


def described(obj: object) -> str:
    """Return an object and its class, for messages."""
    kind = type(obj)
    return f"{shorten(obj)} ({kind.__module__}.{kind.__qualname__})"
