"""What torch modules are made of, scripted and exported ones too; torch is never imported."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator
from functools import cache
from typing import Any

_HOOKS = ("_forward_pre_hooks", "_forward_hooks")
_PLACES = ("device", "layout", "memory_format")
_READ = re.compile(r'prim::GetAttr\[name="(\w+)"\]')
_VARYING = re.compile(r" # [^\n]*|___torch_mangle_\d+\.")
"""Line numbers of the user's files, and numbers that torch gives to classes: they may vary."""


def is_place(value: object) -> bool:
    """Tell whether a value says where tensors are, or how they lie there."""
    return type(value).__module__ == "torch" and type(value).__name__ in _PLACES


def is_dtype(value: object) -> bool:
    """Tell whether a value is one of torch's data types."""
    return (type(value).__module__, type(value).__name__) == ("torch", "dtype")


def is_changing(value: object) -> bool:
    """Tell whether a value is torch's generator of random numbers, or a lock."""
    kind = type(value)
    return (kind.__module__, kind.__name__) == ("torch._C", "Generator") or (
        kind.__module__ in ("_thread", "threading")
    )


def named_parts(model: Any) -> list[tuple[str, Any]]:
    """Return a module and its submodules by name; DataParallel and the like are left out."""
    parallel = sys.modules["torch"].nn.parallel
    while isinstance(model, (parallel.DataParallel, parallel.DistributedDataParallel)):
        model = model.module
    return sorted(model.named_modules(), key=lambda pair: pair[0])


def tensors(module: Any) -> Iterator[tuple[str, Any]]:
    """Yield a module's own parameters and buffers, those too that are not saved."""
    yield from sorted(module.named_parameters(recurse=False), key=lambda pair: pair[0])
    yield from sorted(module.named_buffers(recurse=False), key=lambda pair: pair[0])


def hooks(module: Any) -> list[Any]:
    """Return the functions that are called before and after a module."""
    return [hook for name in _HOOKS for hook in getattr(module, name).values()]


def settings(module: Any, read: Collection[str]) -> dict[str, Any]:
    """Return what a module's attributes are beside its parts.

    Parameters
    ----------
    module : torch.nn.Module
        The module.
    read : collection of str
        Attributes that count though their names say that they are internal.
    """
    torch: Any = sys.modules["torch"]
    if isinstance(module, torch.jit.ScriptModule):
        named = {name: getattr(module, name, None) for name in _READ.findall(_graph(module))}
        # the mode is a setting of its own
        return {k: v for k, v in named.items() if k != "training" and not callable(v)}
    of_every = _of_every_module()
    return {
        name: value
        for name, value in vars(module).items()
        if name not in of_every and (not name.startswith("_") or name in read)
    }


@cache
def _of_every_module() -> frozenset[str]:
    return frozenset(vars(sys.modules["torch"].nn.Module()))


def text(module: Any) -> str:
    """Return the code of a scripted or exported module or function; "" for others."""
    torch: Any = sys.modules["torch"]
    if isinstance(module, (torch.jit.ScriptModule, torch.jit.ScriptFunction)):
        return _VARYING.sub("", _graph(module))
    graph_module = getattr(sys.modules.get("torch.fx"), "GraphModule", ())
    return str(module.code) if isinstance(module, graph_module) else ""


def _graph(module: Any) -> str:
    try:
        return str(module.inlined_graph)
    except (AttributeError, RuntimeError):  # a module without a `forward`
        return ""
