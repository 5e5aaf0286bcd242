"""How the settings of two runs differ, of which one was to go on with the other."""

from __future__ import annotations

import json
from typing import Any

from gpu_patch.errors import argument, shorten


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
            return ", ".join(difference(name, before.get(name), now[name]) for name in names)
    if name == "model":  # of which there is but a digest
        return f"its {argument(name)} is another one"
    if name == "image":
        return f"its image was another one ({found or 'not noted'}; now {wanted})"
    return f"its {argument(name)} is {shorten(found)}, that of this run {shorten(wanted)}"


def begin_anew() -> str:
    """Say what to do about it."""
    return (
        f"Give the same settings to go on; {argument('overwrite', True)} without "
        f"{argument('resume', True)} begins anew"
    )


def _parts(fingerprint: str) -> dict[str, Any]:
    try:
        found = json.loads(fingerprint)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
