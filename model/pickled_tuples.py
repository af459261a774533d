"""Tuples in a pickle that would take without end to hash.

PyTorch reads pickles of weights without running what they name. But a tuple that holds another
twice, and that one a third twice, and so on, takes a few bytes a level, and to hash it as a key of
a dict takes twice as long with each level, in C: not even Ctrl-C ends it.
"""

from __future__ import annotations

import pickletools
from typing import IO, Any

#: Values in one tuple, each counted as often as it is reached: a tensor has some thirty.
MOST_VALUES = 1_000_000

_MEMOISED = ("PUT", "BINPUT", "LONG_BINPUT")
_REMEMBERED = ("GET", "BINGET", "LONG_BINGET")
#: Their results are lists and dicts, which have no hash.
_UNHASHABLE = (
    "EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS",
)  # fmt: skip


def check_tuples(file: IO[bytes]) -> None:
    """Follow a pickle without building anything, and stop where its end is.

    Raises
    ------
    ValueError
        It holds a tuple of more than `MOST_VALUES`, or is no pickle.
    """
    stack: list[int | None] = []  # how many values each holds; None for a mark
    memo: dict[Any, int | None] = {}
    try:
        for operation, argument, _ in pickletools.genops(file):
            name = operation.name
            if name in _REMEMBERED:
                stack.append(memo[argument])
            elif name in _MEMOISED:
                memo[argument] = stack[-1]
            elif name == "MEMOIZE":
                memo[len(memo)] = stack[-1]
            elif name == "DUP":
                stack.append(stack[-1])
            elif name == "MARK":
                stack.append(None)
            else:
                values = 1 + _take(stack, operation)
                if values > MOST_VALUES:
                    raise ValueError("it holds a tuple of tuples without end")
                stack += [0 if name in _UNHASHABLE else values] * len(operation.stack_after)
    except (IndexError, KeyError) as error:
        raise ValueError("its pickle is damaged") from error


def _take(stack: list[int | None], operation: pickletools.OpcodeInfo) -> int:
    """Take what an operation takes off the stack, and count the values."""
    values = 0
    before = list(operation.stack_before)
    if pickletools.markobject in before:
        while (top := stack.pop()) is not None:
            values += top
        before = before[: before.index(pickletools.markobject)]
    return values + sum(stack.pop() or 0 for _ in before)
