"""Cores that issue in order: what a run of instructions costs there, by measured costs."""
