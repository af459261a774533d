"""Kernels that several threads compute, each its part."""
