"""How often a command looks for garbage that reference counts do not find."""

from __future__ import annotations

import atexit
import gc

# PyTorch, TVM and the programs that they trace are millions of objects that stay. With Python's own
# 700 a command walks over them hundreds of times: a sixth of what compiling a network takes.
_OBJECTS, _YOUNG, _MIDDLE = 200_000, 50, 100


def collect_seldom() -> None:
    """Look for garbage after so many new objects that imports and traces cost little.

    Nor is it looked for among all objects when Python ends, which takes most of a second.
    """
    gc.set_threshold(_OBJECTS, _YOUNG, _MIDDLE)
    atexit.register(gc.freeze)
