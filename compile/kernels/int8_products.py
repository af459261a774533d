"""Products of eight-bit numbers, four at a time: what kernels in int8 are written with.

Channels stand in fours, each four in a word of 32 bits. Cores with dot products multiply whole
words. Others multiply two vectors of eight bits to one of 16 and add a second such product to it:
for them a word is two pairs, since a vector of 16 bits holds the products of a pair side by side.
Calls stand for what cores do in one instruction or a few;
:mod:`compiler.passes.tir.dot_products` writes them out for the target.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm
from tvm import tirx

from shuffledeploy.compiler.ir.memory_layout import INT16
from shuffledeploy.compiler.ir.tvm_edges import pure_operator

#: Channels in a word, and in a pair.
FOUR, TWO = 4, 2
PAIRS_OF_WORD = 2
#: ``word(x[i])``: the four int8 from an element on, as an int32.
WORD = pure_operator("shuffledeploy.word")
#: ``dot(sum, a, b)``: a sum and the four products of the int8 in two words, all int32.
DOT = pure_operator("shuffledeploy.dot")
#: ``pair(x[i])``: the two int8 from an element on, as an int16.
PAIR = pure_operator("shuffledeploy.pair")
#: ``dot_of_pairs(sum, a, b, c, d)``: a sum, int32, and the products of the int8 in the pairs a and
#: c, b and d. Two products of a lane fit an int16, for weights are never -128.
DOT_OF_PAIRS = pure_operator("shuffledeploy.dot_of_pairs")
#: ``column(a, b, c, d)``: four int8 that stand apart, as an int32; only dot products take it.
COLUMN = pure_operator("shuffledeploy.column")


def words_of(numbers: int) -> int:
    """Count the words that hold so many int8."""
    return -(-numbers // FOUR)


def word(first: Any) -> Any:
    """Take the four int8 from one on as a word; `first` is a load of that one."""
    return tirx.call_intrin("int32", tvm.ir.Op.get(WORD), first)


def pair_of(first: Any) -> Any:
    """Take the two int8 from one on as a pair; `first` is a load of that one."""
    return tirx.call_intrin(INT16, tvm.ir.Op.get(PAIR), first)


def column(*apart: Any) -> Any:
    """Take four int8 as a word, the first lowest."""
    return tirx.call_intrin("int32", tvm.ir.Op.get(COLUMN), *apart)


def dot(total: Any, left: Any, right: Any) -> Any:
    """Add the four products of the int8 in two words to a sum."""
    return tirx.call_intrin("int32", tvm.ir.Op.get(DOT), total, left, right)


def dot_of_pairs(total: Any, left: Sequence[Any], right: Sequence[Any]) -> Any:
    """Add the four products of the int8 in two pairs and two pairs of weights to a sum."""
    return tirx.call_intrin("int32", tvm.ir.Op.get(DOT_OF_PAIRS), total, *left, *right)
