"""Instructions of PTX, from text to what the engine runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

from ptx.flow import set_rejoins
from ptx.layout import (
    ABSENT,
    COMPARE,
    JOIN,
    LANES_BYTES,
    OP,
    ROUNDING,
    SPACE,
    SPECIAL_REGISTERS,
    TYPE,
    WIDTHS,
    Instruction,
)
from ptx.module import Function, Module

_INTEGER_ROUNDING = {"rni": "NEAREST_INT", "rzi": "TO_ZERO_INT", "rmi": "DOWN_INT",
                     "rpi": "UP_INT"}  # fmt: skip
_UNKNOWN = {"sat", "approx", "full", "cc", "rz", "rm", "rp", "relu"}
"""Parts of a mnemonic that change what it computes, and are not computed."""
_ADDRESS = re.compile(r"\[\s*([%\w$]+)\s*(?:\+\s*(-?\w+))?\s*\]")


@lru_cache(maxsize=256)
def decode(text: str) -> Module:
    """Return the module of a PTX text, all of its functions decoded."""
    module = Module(text)
    callees: list[str] = []
    for function in module.functions.values():
        _Body(module, function, callees).decode()
    module.calls = [
        (first, n_copies, module.functions[callee].start, n_back)
        for (first, n_copies, _, n_back), callee in zip(module.calls, callees, strict=True)
    ]
    return module


class _Body:
    """Decodes a function.

    Parameters
    ----------
    module : Module
        Gets the instructions.
    function : Function
    callees : list of str
        Gets a name for each call: where that starts may not be known yet.
    """

    def __init__(self, module: Module, function: Function, callees: list[str]) -> None:
        self._module, self._function, self._callees = module, function, callees
        self._widths: dict[str, int] = {}  # of registers, by the part of their names before digits
        self._registers: dict[str, int] = {}
        # of calls, and of functions that are called
        self._parameters = {} if function.is_entry else function.parameters | function.results
        self._labels: dict[str, int] = {}
        self._branches: list[tuple[Instruction, str]] = []
        self._line = (0, 0)
        self._guard: dict[str, int] = {}

    def decode(self) -> None:
        code, function = self._module.code, self._function
        function.start = len(code)
        for label, statement in _statements(function.body):
            if label:
                self._labels[label] = len(code)
            else:
                self._statement(statement)
        function.stop = len(code)
        self._guard = {}
        self._add("exit", "EXIT", target=-1 if function.is_entry else 0)
        for branch, label in self._branches:
            branch.target = self._labels[label] if label else function.stop
        set_rejoins(code, function.start, function.stop)

    def _statement(self, text: str) -> None:
        directive, _, rest = text.partition(" ")
        if directive == ".loc":
            file, line, *_ = rest.replace(",", " ").split()
            self._line = int(file), int(line)
        elif directive == ".reg":
            kind, _, names = rest.strip().partition(" ")
            for name in names.split(","):
                self._widths[re.sub(r"<\d+>", "", name).strip()] = WIDTHS[kind[1:]]
        elif directive == ".param":
            name, place = self._module.parameter(text)
            self._parameters[name] = place
        elif directive == ".local":
            raise NotImplementedError(f"{self._function.name}: {text}")
        elif not directive.startswith("."):
            self._guarded(text)

    def _guarded(self, text: str) -> None:
        self._guard = {}
        if match := re.match(r"@(!?)(%\w+)\s+(.*)", text):
            self._guard = {"guard": self._register(match[2])[0], "negated": int(match[1] == "!")}
            text = match[3]
        mnemonic, _, rest = text.partition(" ")
        found = re.findall(r"(?:\{[^}]*\}|\[[^\]]*\]|\([^)]*\)|[^,])+", rest)
        operands = [operand.strip() for operand in found if operand.strip()]
        base, *parts = mnemonic.split(".")
        if _UNKNOWN & set(parts):
            raise NotImplementedError(text)
        special: dict[str, Callable[[str, Sequence[str], list[str]], None]] = {
            "bra": self._branch, "ret": self._branch, "exit": self._branch, "call": self._call,
            "bar": self._barrier, "barrier": self._barrier, "trap": self._trap,
            "ld": self._memory, "st": self._memory, "ldu": self._memory, "setp": self._compare,
            "cvt": self._convert, "cvta": self._convert_address,
        }  # fmt: skip
        if base == "bfi":
            self._insert_bits(text, operands)
        elif base == "mov" and "{" in rest:
            self._repack(mnemonic, parts, operands)
        elif base in special:
            special[base](mnemonic, parts, operands)
        elif base.upper() in OP:
            self._compute(mnemonic, base, parts, operands)
        else:
            raise NotImplementedError(text)

    # ---- operands

    def _add(self, name: str, op: str, **fields) -> Instruction:
        made = Instruction(name, self._line, OP[op], **self._guard, **fields)
        self._module.code.append(made)
        return made

    def _register(self, name: str) -> tuple[int, int]:
        """Return the place of a register and its width, 0 for a predicate."""
        if name in SPECIAL_REGISTERS:
            return SPECIAL_REGISTERS[name], 4
        prefix = name if name in self._widths else name.rstrip("0123456789")
        width = self._widths[prefix]
        if name not in self._registers:
            self._registers[name] = self._module.allocate(width or 4)
        return self._registers[name], width

    def _source(self, text: str, width: int) -> int:
        if text.startswith("%") or text in self._widths:
            return self._register(text)[0]
        return self._module.operand(text, width)

    # ---- instructions

    def _insert_bits(self, text: str, operands: list[str]) -> None:
        """`bfi` of a place known here, by four instructions."""
        to, bits, others, first, count = operands
        width, prefix = (64, "%rd") if "b64" in text else (32, "%r")
        if not (first.isdigit() and count.isdigit()):
            raise NotImplementedError(text)
        place = ((1 << int(count)) - 1 << int(first)) % (1 << width)
        kind, high, low = f"b{width}", f"{prefix}9999998", f"{prefix}9999999"
        self._compute(f"shl.{kind}", "shl", [kind], [high, bits, first])
        self._compute(f"and.{kind}", "and", [kind], [high, high, str(place)])
        self._compute(f"and.{kind}", "and", [kind], [low, others, str(~place % (1 << width))])
        self._compute(f"or.{kind}", "or", [kind], [to, high, low])

    def _compute(self, name: str, base: str, parts: Sequence[str], operands: list[str]) -> None:
        kind = _types(parts)[-1]
        width = WIDTHS[kind]
        widths, mode = [width] * 3, 0
        if base in ("shl", "shr"):
            widths[1] = 4
        elif base == "selp":
            widths[2] = 0
        elif base in ("mul", "mad") and kind[0] != "f":
            mode = 2 if "wide" in parts else int("hi" in parts)
            widths[2] = 2 * width if mode == 2 else width
        # of floats, the two names mean one thing
        op = "FMA" if base == "mad" and kind[0] == "f" else base.upper()
        self._add(
            name, op, type=_number(kind), mode=mode, ftz=int("ftz" in parts),
            to=(self._register(operands[0])[0],),
            from_=tuple(map(self._source, operands[1:], widths)),
        )  # fmt: skip

    def _compare(self, name: str, parts: Sequence[str], operands: list[str]) -> None:
        kind = _types(parts)[-1]
        compare = next(p for p in parts if p.upper() in COMPARE or p == "nan")
        join = next((p for p in parts if p in ("and", "or", "xor")), "")
        places = [self._register(one.strip())[0] for one in operands[0].split("|")]
        from_ = [self._source(operand, WIDTHS[kind]) for operand in operands[1:3]]
        if join:
            if operands[3].startswith("!"):
                raise NotImplementedError(name)
            from_.append(self._register(operands[3])[0])
        self._add(
            name, "SETP", type=_number(kind), ftz=int("ftz" in parts), to=tuple(places),
            from_=tuple(from_), mode=COMPARE["NAN_" if compare == "nan" else compare.upper()],
            detail=JOIN[f"JOIN_{join.upper()}" if join else "NO_JOIN"],
        )  # fmt: skip

    def _convert(self, name: str, parts: Sequence[str], operands: list[str]) -> None:
        to, kind = _types(parts)
        rounding = next((_INTEGER_ROUNDING[p] for p in parts if p in _INTEGER_ROUNDING), "NEAREST")
        place, width = self._register(operands[0])
        self._add(
            name, "CVT", type=_number(to), from_type=_number(kind), mode=ROUNDING[rounding],
            ftz=int("ftz" in parts), wide=int(width == 8), to=(place,),
            from_=(self._source(operands[1], WIDTHS[kind]),),
        )  # fmt: skip

    def _convert_address(self, name: str, parts: Sequence[str], operands: list[str]) -> None:
        if "local" in parts:
            raise NotImplementedError(name)
        op = "MOV"  # generic addresses of global memory are the same
        if "shared" in parts:
            op = "CVTA_TO_SHARED" if "to" in parts else "CVTA_SHARED"
        kind = _types(parts)[-1]
        from_ = (self._source(operands[1], WIDTHS[kind]),)
        self._add(name, op, type=_number(kind), to=(self._register(operands[0])[0],), from_=from_)

    def _repack(self, name: str, parts: Sequence[str], operands: list[str]) -> None:
        kind = _types(parts)[-1]
        op = "UNPACK" if operands[0][0] == "{" else "PACK"
        to, from_ = ([o.strip() for o in operand.strip("{}").split(",")] for operand in operands)
        width = WIDTHS[kind] // (2 if op == "PACK" else 1)
        self._add(
            name, op, type=_number(kind),
            to=tuple(ABSENT if o == "_" else self._register(o)[0] for o in to),
            from_=tuple(self._source(o, width) for o in from_),
        )  # fmt: skip

    def _memory(self, name: str, parts: Sequence[str], operands: list[str]) -> None:
        kind, loads = _types(parts)[-1], name.startswith("ld")
        space = next((p for p in parts if p.upper() in SPACE), "generic")
        address, vector = operands if not loads else operands[::-1]
        values = [v.strip() for v in vector.strip("{}").split(",")]
        where, offset = _ADDRESS.match(address).groups()
        immediate, wide, target, base = int(offset or "0", 0), 0, 0, 0
        if space == "local":
            raise NotImplementedError(name)
        if space == "param" and where not in self._parameters:
            space = "entry"  # the kernel's own: memory, by name or by an address that was taken
        if space == "param":
            target, _ = self._parameters[where]
        elif where.startswith("%"):
            base, width = self._register(where)
            wide = 2 if width == 8 else 0
        else:
            base, wide = self._module.operand("0", 8), 2
            immediate += self._module.address(where)
        to: tuple[int, ...] = ()
        from_ = [base]
        if loads:
            registers = [self._register(v) for v in values]
            to = tuple(place for place, _ in registers)
            wide |= int(registers[0][1] == 8)
        else:
            from_ += [self._source(v, WIDTHS[kind]) for v in values]
        self._add(
            name, "LD" if loads else "ST", type=_number(kind), mode=SPACE[space.upper()],
            detail=int("nc" in parts), n=len(values), immediate=immediate, wide=wide,
            target=target, to=to, from_=tuple(from_),
        )  # fmt: skip

    def _branch(self, name: str, parts: Sequence[str], operands: list[str]) -> None:
        jumps = name.startswith("bra")
        made = self._add(name.split(".")[0], "BRA" if jumps else "RET")
        self._branches.append((made, operands[0] if jumps else ""))

    def _barrier(self, name: str, parts: Sequence[str], operands: list[str]) -> None:
        if operands not in (["0"], []) or set(parts) & {"arrive", "red"}:
            raise NotImplementedError(f"{name} {operands}")
        self._add("bar", "BAR")

    def _trap(self, name: str, parts: Sequence[str], operands: list[str]) -> None:
        self._add(name, "TRAP")

    def _call(self, name: str, parts: Sequence[str], operands: list[str]) -> None:
        results = operands.pop(0) if operands[0][0] == "(" else ""
        callee = self._module.functions[operands[0]]
        given = operands[1] if len(operands) > 1 else ""
        copies = self._module.copies
        first = len(copies)
        for own, formal in zip(_names(given), callee.parameters.values(), strict=True):
            copies += _words(self._parameters[own][0], *formal)
        n_copies = len(copies) - first
        for own, (place, words) in zip(_names(results), callee.results.values(), strict=True):
            copies += _words(place, self._parameters[own][0], words)
        self._add("call", "CALL", target=len(self._module.calls))
        self._module.calls.append((first, n_copies, 0, len(copies) - first - n_copies))
        self._callees.append(callee.name)


def _statements(body: str) -> Iterator[tuple[str, str]]:
    """Go through a body's labels and statements: (label, "") or ("", statement)."""
    space, label = re.compile(r"[\s{}]*"), re.compile(r"([\w$]+):(?!:)")
    at = space.match(body).end()
    while at < len(body):
        if found := label.match(body, at):
            yield found[1], ""
            at = found.end()
        else:
            end = body.index(";", at)
            yield "", " ".join(body[at:end].split())
            at = end + 1
        at = space.match(body, at).end()


def _types(parts: Sequence[str]) -> list[str]:
    return [part for part in parts if part in WIDTHS] or ["b32"]


def _number(kind: str) -> int:
    return TYPE[("u" + kind[1:] if kind[0] == "b" else kind).upper()]


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.strip("() ").split(",") if name.strip()]


def _words(source: int, to: int, words: int) -> list[tuple[int, int]]:
    return [(source + LANES_BYTES * i, to + LANES_BYTES * i) for i in range(words)]
