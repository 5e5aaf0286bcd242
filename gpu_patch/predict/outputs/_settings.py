"""How the settings of two runs differ, of which one was to go on with the other."""

from __future__ import annotations

import json
from typing import Any

from gpu_patch.errors import argument, shorten

_LONGEST = 60


def differences(found: str, wanted: str) -> str:
    """Say what differs between the fingerprints of an earlier run and of this one.

    Parameters
    ----------
    found, wanted : str
        JSON of a dict, argument by argument; anything else is shown as it is.
    """
    before, now = _settings(found), _settings(wanted)
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return ", ".join(_difference(name, before.get(name), now.get(name)) for name in names)


def begin_anew() -> str:
    """Say what to do."""
    return (
        f"Give the same settings to go on; {argument('overwrite', True)} without "
        f"{argument('resume', True)} begins anew"
    )


def _settings(fingerprint: str) -> dict[str, Any]:
    try:
        found = json.loads(fingerprint)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"fingerprint": fingerprint}


def _difference(name: str, before: object, now: object) -> str:
    if name == "model":  # of which there is but a digest
        return f"{argument(name)} is another one"
    return f"{argument(name)} was {shorten(before, _LONGEST)} and is {shorten(now, _LONGEST)}"
