"""What the decoder and the engine agree on: numbers of enums, records, registers' places."""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ENGINE = Path(__file__).parent / "engine"
_HEADER = re.sub(r"//[^\n]*", "", (ENGINE / "instructions.h").read_text(encoding="utf-8"))


def _enum(name: str) -> dict[str, int]:
    body = re.search(rf"enum {name} \{{(.*?)\}}", _HEADER, re.S)[1]
    parts = [part.split("=")[0].strip() for part in body.split(",")]
    return {part: number for number, part in enumerate(parts)}


OP, TYPE, SPACE, COMPARE, JOIN, ROUNDING, EVENT = map(
    _enum, ("Op", "Type", "Space", "Compare", "Join", "Rounding", "Event")
)
EVENTS = [name.lower() for name in EVENT if name != "N_EVENTS"]
UNINITIALISED = 4
"""Bit of a byte's shadow."""
ABSENT = -(1 << 31)
"""Place of a register that an instruction does not have."""
LANES_BYTES = 128
"""Of a register of 32 bits."""

WIDTHS = {
    "pred": 0, "u8": 1, "s8": 1, "b8": 1, "u16": 2, "s16": 2, "b16": 2, "f16": 2, "u32": 4,
    "s32": 4, "b32": 4, "f32": 4, "u64": 8, "s64": 8, "b64": 8, "f64": 8,
}  # fmt: skip
"""Bytes of PTX's types."""

SPECIAL_REGISTERS = {
    f"%{name}.{axis}": (3 * i + j) * LANES_BYTES
    for i, name in enumerate(("tid", "ntid", "ctaid", "nctaid"))
    for j, axis in enumerate("xyz")
} | {"%laneid": 12 * LANES_BYTES}
FIRST_FREE = 13 * LANES_BYTES

INSTRUCTION = np.dtype(
    [(name, np.int32) for name in ("op", "type", "from_type", "mode", "detail", "ftz", "guard",
                                   "negated")]
    + [("to", np.int32, 4), ("from_", np.int32, 5)]
    + [(name, np.int32) for name in ("n", "wide", "target", "rejoin")]
    + [("immediate", np.int64)],
    align=True,
)  # fmt: skip
STAT = np.dtype(
    [(name, np.uint64) for name in ("runs", "active_runs", "lanes", "bytes", "sectors",
                                    "block_sectors", "waves", "extra_waves")]
)  # fmt: skip
FOUND = np.dtype(
    [("event", np.int32), ("at", np.int32), ("block", np.int32), ("thread", np.int32),
     ("address", np.uint64)]
)  # fmt: skip
TOTALS = np.dtype(
    [(name, np.int64) for name in ("barriers", "branches", "divergent", "bytes_loaded",
                                   "bytes_stored", "sectors_loaded", "sectors_stored")]
)  # fmt: skip


@dataclass
class Instruction:
    """A decoded instruction; its fields are those of `INSTRUCTION`, and where it is from."""

    name: str
    """Mnemonic with its types, "ld.global.nc.u16"."""
    line: tuple[int, int]
    """Number of the file and of the line, where the compiler was asked for them."""
    op: int
    type: int = 0
    from_type: int = 0
    mode: int = 0
    detail: int = 0
    ftz: int = 0
    guard: int = -1
    negated: int = 0
    to: tuple[int, ...] = ()
    from_: tuple[int, ...] = ()
    n: int = 1
    wide: int = 0
    target: int = 0
    rejoin: int = -1
    immediate: int = 0

    def record(self) -> tuple:
        """Return it as a row of `INSTRUCTION`."""
        values = []
        for name in INSTRUCTION.names:
            value, size = getattr(self, name), INSTRUCTION[name].shape
            if size:
                assert len(value) <= size[0], self.name
                value = (*value, *(ABSENT,) * (size[0] - len(value)))
            values.append(value)
        return tuple(values)


class Launch(ctypes.Structure):
    """`struct Launch`."""

    _fields_ = [  # ctypes wants it so
        *((name, ctypes.c_void_p) for name in ("code", "calls", "copies", "constants",
                                               "const_memory")),
        ("const_bytes", ctypes.c_int64),
        ("buffers", ctypes.c_void_p),
        ("n_buffers", ctypes.c_int64),
        ("stats", ctypes.c_void_p),
        ("found", ctypes.c_void_p),
        ("most_found", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("n_found", "totals", "parameters")),
        *((name, ctypes.c_int64) for name in ("parameter_bytes", "register_bytes",
                                              "shared_bytes")),
        ("start", ctypes.c_int32),
        ("grid", ctypes.c_int32 * 3),
        ("block", ctypes.c_int32 * 3),
        ("order", ctypes.c_int32),
    ]  # fmt: skip
