"""Passes over calls of scheduled kernels: what is written where."""
