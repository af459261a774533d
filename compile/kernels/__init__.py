"""Tensor expressions and schedules of the kernels that the networks spend their time in."""
