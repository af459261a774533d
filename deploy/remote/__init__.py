"""Devices without Python: what runs there is pushed, started, used and ended."""
