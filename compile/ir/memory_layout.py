"""What kernels take for granted of tensors in memory."""

from __future__ import annotations

FLOAT_BYTES = 4
# Bytes to whose multiples tensors are aligned: TVM's own allocations are.
ALIGNMENT = 64


def aligned(size: int) -> int:
    """Round a number of bytes up to where the next tensor may start."""
    return -(-size // ALIGNMENT) * ALIGNMENT
