"""How the settings of two runs differ, of which one was to go on with the other."""

from __future__ import annotations

import json
from typing import Any

from gpu_patch.checks import Message, argument, shorten


def difference(name: str, found: Any, wanted: Any) -> str:
    """Say how a setting differs between an earlier run and this one; a fingerprint by its parts.

    Parameters
    ----------
    name : str
        The setting.
    found, wanted : object
        Of the earlier run, and of this one. A fingerprint is JSON, of a dict by arguments.
    """
    if name == "fingerprint":
        before, now = _parts(found), _parts(wanted)
        names = [name for name in now if before.get(name) != now[name]]
        if before and names:
            differ = [difference(name, before.get(name), now[name]) for name in names]
            return Message.joined(", ", differ)
    if isinstance(found, dict) and isinstance(wanted, dict) and name != "model":
        inner = next((k for k in {**found, **wanted} if found.get(k) != wanted.get(k)), "")
        return difference(f"{name}[{inner!r}]", found.get(inner), wanted.get(inner))
    if name == "model":
        return _other_model(found, wanted)
    if name == "image":
        return f"its image was another one ({found or 'not noted'}; now {wanted})"
    return Message(
        "its ", argument(name), f" is {shorten(found)}, that of this run {shorten(wanted)}"
    )


def _other_model(found: Any, wanted: Any) -> str:
    """Say in which parts a model differs, of which there are digests, or what its user has said."""
    its = Message("its ", argument("model"))
    if isinstance(found, dict) and isinstance(wanted, dict):
        names = [name for name in {**found, **wanted} if found.get(name) != wanted.get(name)]
        return Message(its, f" is another one, by its {', '.join(names)}")
    told = [isinstance(each, str) and each != "" for each in (found, wanted)]
    if told[0] == told[1]:
        return Message(its, f" is another one ({found}; now {wanted})")
    by = Message("told by ", argument("model_id"))
    if told[0]:
        return Message(its, " was ", by, ", that of this run not")
    return Message(its, " was not ", by)


def begin_anew() -> str:
    """Say what to do about it."""
    return Message(
        "Give the same settings to go on; ",
        argument("overwrite", True),
        " without ",
        argument("resume", True),
        " begins anew",
    )


def _parts(fingerprint: str) -> dict[str, Any]:
    try:
        found = json.loads(fingerprint)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
