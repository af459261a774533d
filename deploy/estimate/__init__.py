"""Cycles without the core: executed pieces of code times what they cost."""
