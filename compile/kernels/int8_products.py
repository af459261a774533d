"""Products of eight-bit numbers, four at a time: what kernels in int8 are written with.

Channels stand in fours, each four in a word of 32 bits. Calls stand for what cores do in one
instruction; :mod:`compiler.passes.tir.dot_products` writes them out for the target.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import tirx

from shuffledeploy.compiler.ir.tvm_edges import pure_operator

#: Channels in a word.
FOUR = 4
#: ``word(x[i])``: the four int8 from an element on, as an int32.
WORD = pure_operator("shuffledeploy.word")
#: ``dot(sum, a, b)``: a sum and the four products of the int8 in two words, all int32.
DOT = pure_operator("shuffledeploy.dot")
#: ``column(a, b, c, d)``: four int8 that stand apart, as an int32; only dot products take it.
COLUMN = pure_operator("shuffledeploy.column")


def words_of(numbers: int) -> int:
    """Count the words that hold so many int8."""
    return -(-numbers // FOUR)


def word(first: Any) -> Any:
    """Take the four int8 from one on as a word; `first` is a load of that one."""
    return tirx.call_intrin("int32", tvm.ir.Op.get(WORD), first)


def column(*apart: Any) -> Any:
    """Take four int8 as a word, the first lowest."""
    return tirx.call_intrin("int32", tvm.ir.Op.get(COLUMN), *apart)


def dot(total: Any, left: Any, right: Any) -> Any:
    """Add the four products of the int8 in two words to a sum."""
    return tirx.call_intrin("int32", tvm.ir.Op.get(DOT), total, left, right)
