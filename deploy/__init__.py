"""Devices, parity, latency and the comparison with the paper."""
