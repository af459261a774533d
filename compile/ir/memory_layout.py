"""What kernels take for granted of tensors in memory."""

from __future__ import annotations

#: Types of the numbers that networks compute in.
FLOAT, HALF = "float32", "float16"
#: Bytes of an element of each.
ELEMENT_BYTES = {FLOAT: 4, HALF: 2}
FLOAT_BYTES = ELEMENT_BYTES[FLOAT]
# Bytes to whose multiples tensors are aligned: TVM's own allocations are.
ALIGNMENT = 64


def aligned(size: int) -> int:
    """Round a number of bytes up to where the next tensor may start."""
    return -(-size // ALIGNMENT) * ALIGNMENT
