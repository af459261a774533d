"""Layers computed strip by strip: kernels on a range of rows, groups, plans and drivers."""
