"""A module of PTX: its functions, constants and shared memory, and where registers stand."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field

import numpy as np

from ptx.layout import FIRST_FREE, INSTRUCTION, LANES_BYTES, WIDTHS, Instruction

_HEAD = re.compile(
    r"\.(?P<kind>func|entry)\s+(?:\((?P<results>[^)]*)\)\s*)?(?P<name>[\w$]+)\s*"
    r"(?:\((?P<parameters>[^)]*)\))?(?P<attributes>[^{;]*)(?P<end>[{;])"
)
_VARIABLE = re.compile(
    r"\.(?P<space>const|shared)\s+(?:\.align\s+(?P<align>\d+)\s+)?\.(?P<type>\w+)\s+"
    r"(?P<name>[\w$]+)\s*(?P<array>\[(?P<count>\d*)\])?\s*(?:=\s*(?P<values>.*))?$",
    re.S,
)
_DYNAMIC_ALIGNMENT = _PARAMETER_ALIGNMENT = 16
_ENTRY_WINDOW = 0x0200000000000000


@dataclass
class Function:
    """A function, whose parameters are (place, words), or an entry: (address, bytes)."""

    name: str
    is_entry: bool
    body: str
    parameters: dict[str, tuple[int, int]] = field(default_factory=dict)
    results: dict[str, tuple[int, int]] = field(default_factory=dict)
    start: int = 0
    stop: int = 0


class Module:
    """What stands outside of functions' bodies, and what their instructions share.

    Attributes
    ----------
    code : list of Instruction
    functions : dict
    register_bytes : int
        Of a warp: every register of every function has a place of its own.
    shared_bytes : int
        Of the module's own variables; dynamic shared memory begins behind them.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.code: list[Instruction] = []
        self.calls: list[tuple[int, int, int, int]] = []
        self.copies: list[tuple[int, int]] = []
        self.functions: dict[str, Function] = {}
        self.register_bytes = FIRST_FREE
        self._shared_end, self._entry_end = 0, _ENTRY_WINDOW
        self._operands: dict[tuple[int, int], int] = {}
        self._operand_bytes = bytearray()
        self._const = bytearray(64)
        self._addresses: dict[str, int] = {}
        self._dynamic: set[str] = set()
        self._split(re.sub(r"//[^\n]*", "", text))

    @property
    def shared_bytes(self) -> int:
        return -(-self._shared_end // _DYNAMIC_ALIGNMENT) * _DYNAMIC_ALIGNMENT

    def allocate(self, n_bytes: int) -> int:
        """Return the place of a new register of 4 or 8 bytes, or of several words."""
        place = self.register_bytes
        self.register_bytes += -(-n_bytes // 4) * LANES_BYTES
        return place

    def parameter(self, text: str) -> tuple[str, tuple[int, int]]:
        """Make room for what a `.param` declares; return its name, and (place, words)."""
        name, n_bytes = _declared(text)
        words = -(-n_bytes // 4)
        return name, (self.allocate(4 * words), words)

    def _of_entry(self, text: str) -> tuple[str, tuple[int, int]]:
        """As `parameter`, of a kernel, whose threads share them: return address and bytes."""
        name, n_bytes = _declared(text)
        self._addresses[name] = place = self._entry_end
        self._entry_end += -(-n_bytes // _PARAMETER_ALIGNMENT) * _PARAMETER_ALIGNMENT
        return name, (place, n_bytes)

    def operand(self, text: str, width: int) -> int:
        """Return the place of a number, or of the address of a variable."""
        lane = 8 if width == 8 else 4
        if text in self._addresses or text in self._dynamic:
            bits = self.address(text)
        else:
            bits = number_bits(text, lane)
        key = bits, lane
        if key not in self._operands:
            self._operands[key] = len(self._operand_bytes)
            self._operand_bytes += struct.pack("<Q" if lane == 8 else "<I", bits) * 32
        return ~self._operands[key]

    def address(self, name: str) -> int:
        """Return where a variable is in its space."""
        return self.shared_bytes if name in self._dynamic else self._addresses[name]

    def declare(self, statement: str) -> None:
        """Take in a variable."""
        found = _VARIABLE.search(statement.strip())
        if not found:
            return
        name, width = found["name"], WIDTHS[found["type"]]
        align = int(found["align"] or width)
        n_bytes = width * int(found["count"] or 1)
        if found["space"] == "const":
            self._const += bytes(-len(self._const) % align)
            self._addresses[name] = len(self._const)
            numbers = re.findall(r"[^{},\s]+", found["values"] or "")
            values = b"".join(number_bits(n, width).to_bytes(width, "little") for n in numbers)
            self._const += values.ljust(n_bytes, b"\0")
        elif found["space"] == "shared" and found["array"] and not found["count"]:
            self._dynamic.add(name)
        elif found["space"] == "shared":
            self._shared_end += -self._shared_end % align
            self._addresses[name] = self._shared_end
            self._shared_end += n_bytes
        # else a constant of the C++ text, which no instruction reads

    def arrays(self) -> dict[str, np.ndarray]:
        """Return what the engine reads."""
        return {
            "code": np.array([each.record() for each in self.code], INSTRUCTION),
            "calls": np.array(self.calls or [(0, 0, 0, 0)], np.int32),
            "copies": np.array(self.copies or [(0, 0)], np.int32),
            "constants": np.frombuffer(bytes(self._operand_bytes) or bytes(8), np.uint8).copy(),
            "const_memory": np.frombuffer(bytes(self._const), np.uint8).copy(),
        }

    def _split(self, text: str) -> None:
        """Find the functions, and the variables between and in them."""
        # directives for debuggers have no semicolon
        text = re.sub(r"^(\s*\.(?:loc|file)\b[^\n;]*)$", r"\1;", text, flags=re.M)
        at, outside = 0, []
        while head := _HEAD.search(text, at):
            outside.append(text[at : head.start()])
            at = head.end()
            if head["end"] == ";":  # declared, and defined elsewhere
                continue
            end = _closing(text, at)
            function = Function(head["name"], head["kind"] == "entry", text[at : end - 1])
            for group, known in (
                ("parameters", function.parameters),
                ("results", function.results),
            ):
                parts = filter(None, map(str.strip, (head[group] or "").split(",")))
                known.update(map(self._of_entry if function.is_entry else self.parameter, parts))
            self._entry_end = _ENTRY_WINDOW
            self.functions[function.name] = function
            at = end
        for statement in "".join([*outside, text[at:]]).split(";"):
            self.declare(statement)
        for function in self.functions.values():
            for statement in re.findall(r"\.shared[^;]*", function.body):
                self.declare(statement)


def _declared(text: str) -> tuple[str, int]:
    """Return name and bytes of what a `.param` declares."""
    kind = re.search(r"\.([bus]\d+|f\d+)\b", text)[1]
    name, count = re.search(r"([\w$]+)\s*(?:\[(\d+)\])?$", text.strip()).groups()
    return name, WIDTHS[kind] * int(count or 1)


def number_bits(text: str, width: int) -> int:
    """Return the bits of a number as PTX writes it: 12, -3, 0x1F, 7U, 0f3F800000, 0d…"""
    if match := re.fullmatch(r"0[fFdD]([0-9a-fA-F]{8}|[0-9a-fA-F]{16})", text):
        return int(match[1], 16)
    return int(text.rstrip("U"), 0) & ((1 << 8 * width) - 1)


def _closing(text: str, at: int) -> int:
    """Return where the body that starts at `at` ends: behind its brace."""
    depth = 1
    while depth:
        brace = re.compile("[{}]").search(text, at)
        depth += 1 if brace[0] == "{" else -1
        at = brace.end()
    return at
