"""Passes over the network's graph: from operators to calls of unscheduled kernels."""
