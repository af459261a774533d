"""Imports that do without a module which others would take along."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _Hiding(MetaPathFinder):
    """Finds no module of a name, and lets nobody else find it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Refuse the module; all others are left to others."""
        if fullname == self._name:
            raise ModuleNotFoundError(f"{fullname} is hidden here", name=fullname)
        return None


@contextmanager
def hidden_module(name: str) -> Iterator[None]:
    """Let a module look as if it were not installed, for a block's length.

    TVM imports PyTorch if it can, which takes 2 s. Whoever only runs a bundle needs none of it.

    Parameters
    ----------
    name : str
        The module. Where it was imported already, it stays.
    """
    finder = _Hiding(name)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
