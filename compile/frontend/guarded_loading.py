"""Keep `torch.export.load` from running what a saved program carries beside graph and tensors.

A ``.pt2`` file may hold pickles (weights, constants, sample inputs), compiled libraries, and
symbolic extents that SymPy evaluates as Python. PyTorch 2.13 opens all of them without being asked.
Programs with fixed shapes and plain tensors need none of them.

It is a second wall: `compiler.frontend.program_archive` refuses such files, or leaves these things
out, before PyTorch sees them. It is no sandbox: PyTorch writes Python from the graph and compiles
it; that the names in it are plain is for `compiler.frontend.program_archive` to see to.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch._export.serde.serialize import GraphModuleDeserializer
from torch.export.pt2_archive import _package


class DynamicShapes(ValueError):
    """A saved program has extents that are not numbers."""


def _refuse(what: str) -> Any:
    def refused(*_: Any, **__: Any) -> None:
        raise pickle.UnpicklingError(f"it holds {what}, which is not run")

    return refused


def _refuse_expression(_: Any, text: str, hint: Any = None) -> None:
    raise DynamicShapes(f"it has dynamic shapes ({text[:40]!r}): export it with fixed shapes")


@contextmanager
def no_code_from_programs() -> Iterator[None]:
    """Refuse pickles, libraries and expressions while the block runs; not for use in threads."""
    with ExitStack() as stack:
        # `torch.load` obeys this also where it is told weights_only=False.
        stack.enter_context(mock.patch.dict(os.environ, {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}))
        for owner, name, replacement in (
            (_package, "pickle", mock.Mock(loads=_refuse("a pickled object"))),
            (torch._C, "_pickle_load_obj", _refuse("a pickled object")),
            (_package, "_load_aoti", _refuse("a compiled library")),
            (GraphModuleDeserializer, "_parse_sym_expr", _refuse_expression),
        ):
            stack.enter_context(mock.patch.object(owner, name, replacement))
        yield
