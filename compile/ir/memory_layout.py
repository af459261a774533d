"""What kernels take for granted of tensors in memory."""

FLOAT_BYTES = 4
# Bytes to whose multiples tensors are aligned: TVM's own allocations are.
ALIGNMENT = 64
