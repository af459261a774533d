"""Checkpoints that other projects wrote: recognised by their names, converted exactly."""
