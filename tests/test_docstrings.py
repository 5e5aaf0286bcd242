"""Everything public is described, in numpydoc's sections."""

import ast
import importlib
import inspect
import re
import textwrap

import pytest

MODULES = {
    "gpu_patch": None,
    "gpu_patch.feed": None,
    "gpu_patch.predict": None,
    "gpu_patch.patching": None,
    "gpu_patch.images": None,
    "gpu_patch.chunks": None,
    "gpu_patch.plots": None,
    "gpu_patch.careamics": None,
    "gpu_patch.careamics.lightning": "careamics",
    "gpu_patch.torch": "torch",
    "gpu_patch.lightning": "lightning",
}
"""With what they need."""


def section(docstring, title):
    """The lines of a numpydoc section."""
    match = re.search(rf"^{title}\n-+\n((?:.*\n?)*?)(?=^\w+\n-+\n|\Z)", docstring, re.MULTILINE)
    return match[1] if match else ""


def named_in(text):
    """Parameters that a section describes: "a, b : int", "**options"."""
    heads = re.findall(r"^([\w*]+(?:, [\w*]+)*)(?: :|$)", text, re.MULTILINE)
    return [name.lstrip("*") for head in heads for name in head.split(", ")]


def public(module):
    """What a module exports, and the members of its classes: (path, object, class or None)."""
    for name in module.__all__:
        found = getattr(module, name)
        if not callable(found):
            continue
        yield name, found, None
        for member in dir(found) if inspect.isclass(found) else ():
            owner = next((kind for kind in found.__mro__ if member in vars(kind)), None)
            if member.startswith("_") or not owner.__module__.startswith("gpu_patch"):
                continue
            static = inspect.getattr_static(found, member)
            if isinstance(static, (property, classmethod)) or inspect.isfunction(static):
                yield f"{name}.{member}", getattr(found, member), owner


def exported():
    """Each object once, by the first name that it has."""
    found = {}
    for name, needed in MODULES.items():
        try:
            module = importlib.import_module(name)
        except ModuleNotFoundError as error:
            missing = pytest.mark.skip(reason=f"{name} needs {error.name}")
            if needed is None:
                raise
            yield pytest.param(None, None, id=name, marks=missing)
            continue
        for path, value, owner in public(module):
            key = (owner, path.rpartition(".")[2]) if owner else value
            if key not in found:
                found[key] = name
                yield pytest.param(value, owner, id=f"{name}.{path}")


def parameters(function):
    names = inspect.signature(function).parameters
    return [name for name in names if name not in ("self", "cls")]


def raises(function):
    """Whether a function raises itself, or checks its arguments with `gpu_patch.checks`."""
    checks = {
        name
        for name, value in vars(inspect.getmodule(function)).items()
        if getattr(value, "__module__", "") == "gpu_patch.checks" and name != "shorten"
    }
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
        if isinstance(node, ast.Raise) and node.exc:
            if "NotImplementedError" not in ast.unparse(node):  # of what is abstract
                return True
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in checks:
            return True
    return False


def said_of(value, owner):
    """The docstring; of a method also those that it overrides, whose sections go on to hold."""
    if owner is None or not inspect.isfunction(value):
        return inspect.getdoc(value) or ""
    members = (vars(kind).get(value.__name__) for kind in owner.__mro__)
    return "\n\n".join(inspect.getdoc(member) for member in members if member and member.__doc__)


def is_record(kind):
    """Whether a class is a named tuple, a dict with known keys or a dataclass."""
    return issubclass(kind, (tuple, dict)) or hasattr(kind, "__dataclass_fields__")


def fields(kind):
    """Those that a record has itself; keys of a dict that it inherits are described there."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    return [node.target.id for node in body.body if isinstance(node, ast.AnnAssign)]


def written(kind):
    """The constructor that a class, or one of its own bases, has itself."""
    kinds = (base for base in kind.__mro__ if base.__module__.startswith("gpu_patch"))
    return next((vars(base)["__init__"] for base in kinds if "__init__" in vars(base)), None)


@pytest.mark.parametrize(("value", "owner"), list(exported()))
def test_it_is_described(value, owner):
    docstring = said_of(value, owner)
    assert re.match(r"[A-Z].*?\.(\n\n|$)", docstring, re.DOTALL), "first a sentence"
    described = named_in(section(docstring, "Parameters"))
    if isinstance(value, property):
        return
    if not inspect.isclass(value):
        assert sorted(described) == sorted(parameters(value))
        returns = inspect.signature(value).return_annotation
        nothing_new = returns == "None" or (owner and returns == owner.__name__)
        assert nothing_new or section(docstring, "Returns") or section(docstring, "Yields")
        assert section(docstring, "Raises") or not raises(value)
    elif is_record(value):
        attributes = named_in(section(docstring, "Attributes"))
        assert (attributes or described)[: len(fields(value))] == fields(value)
    elif not inspect.isabstract(value) and written(value):
        assert described == parameters(written(value))
        assert section(docstring, "Raises") or not raises(written(value))


def test_modules_say_what_they_export():
    for name in MODULES:
        path = importlib.util.find_spec(name).origin
        with open(path, encoding="utf-8") as file:
            module = ast.parse(file.read())
        assert ast.get_docstring(module)
        assert any("__all__" in ast.unparse(node) for node in module.body), name
