"""Where lanes that part at a branch meet again: at its immediate post-dominator."""

from __future__ import annotations

from collections.abc import Sequence

from ptx.layout import OP, Instruction

_BRANCHES = {OP["BRA"], OP["RET"]}


def set_rejoins(code: Sequence[Instruction], first: int, last: int) -> None:
    """Set `rejoin` of the conditional branches of a function, whose EXIT is at `last`."""
    starts, ends, after = _blocks(code, first, last)
    dominator = _post_dominators(after)
    for block, end in enumerate(ends):
        branch = code[end]
        if branch.op in _BRANCHES and branch.guard >= 0 and block in dominator:
            branch.rejoin = starts[dominator[block]]


def _blocks(code: Sequence[Instruction], first: int, last: int):
    """Return where basic blocks start and end, and which may follow each; the exit is the last."""
    leaders = {first, last}
    for at in range(first, last):
        if code[at].op in _BRANCHES:
            leaders |= {at + 1, code[at].target}
    starts = sorted(leaders)
    number = {at: block for block, at in enumerate(starts)}
    ends = [following - 1 for following in starts[1:]] + [last]
    after: list[list[int]] = []
    for block, end in enumerate(ends[:-1]):
        branch = code[end]
        taken = [number[branch.target]] if branch.op in _BRANCHES else []
        falls = [] if taken and branch.guard < 0 else [block + 1]
        after.append(taken + falls)
    return starts, ends, [*after, []]


def _post_dominators(after: list[list[int]]) -> dict[int, int]:
    """Return the immediate post-dominator of each block that reaches the last one.

    After Cooper, Harvey and Kennedy, "A simple, fast dominance algorithm" (2001), on the graph
    read backwards.
    """
    exit_block = len(after) - 1
    order = _post_order(after, exit_block)
    rank = {block: i for i, block in enumerate(order)}
    found = {exit_block: exit_block}

    def common(a: int, b: int) -> int:
        while a != b:
            if rank[a] < rank[b]:
                a = found[a]
            else:
                b = found[b]
        return a

    changed = True
    while changed:
        changed = False
        for block in reversed(order[:-1]):
            known = [following for following in after[block] if following in found]
            nearest = known[0]
            for following in known[1:]:
                nearest = common(nearest, following)
            changed |= found.get(block) != nearest
            found[block] = nearest
    return found


def _post_order(after: list[list[int]], start: int) -> list[int]:
    """Return the blocks that lead to `start` in post-order, going backwards from it."""
    before: list[list[int]] = [[] for _ in after]
    for block, following in enumerate(after):
        for other in following:
            before[other].append(block)
    order, seen, stack = [], {start}, [(start, iter(before[start]))]
    while stack:
        block, rest = stack[-1]
        for other in rest:
            if other not in seen:
                seen.add(other)
                stack.append((other, iter(before[other])))
                break
        else:
            order.append(block)
            stack.pop()
    return order
