"""What kernels take for granted of tensors in memory."""

from __future__ import annotations

from typing import NamedTuple

#: Types of the numbers that networks compute in.
FLOAT, HALF = "float32", "float16"
#: Bytes of an element of each.
ELEMENT_BYTES = {FLOAT: 4, HALF: 2}
#: Type of tensors that are held in eight bits, and of the sums of their products.
INT8, INT32 = "int8", "int32"
#: Type of the sum of two such products.
INT16 = "int16"
#: What networks can be asked to compute in.
PRECISIONS = (FLOAT, HALF, INT8)
FLOAT_BYTES = ELEMENT_BYTES[FLOAT]
# Bytes to whose multiples tensors are aligned: TVM's own allocations are.
ALIGNMENT = 64


class Held(NamedTuple):
    """How a tensor is held in int8: an element q stands for (q - zero) * scale."""

    scale: float
    zero: int


def aligned(size: int) -> int:
    """Round a number of bytes up to where the next tensor may start."""
    return -(-size // ALIGNMENT) * ALIGNMENT
