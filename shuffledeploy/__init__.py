"""A PyTorch network, compiled for an ARM core, proven on a device.

>>> import shuffledeploy, torch                                            # doctest: +SKIP
>>> bundle = shuffledeploy.compile(network, (torch.zeros(1, 3, 224, 224),), target="arm")
>>> shuffledeploy.check_parity(bundle).verdict
>>> with shuffledeploy.open_bundle(bundle, "emulated") as run:
...     logits = run(image)

Importing this package imports neither TVM nor PyTorch: what needs them does.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shuffledeploy.api import OpenBundle as OpenBundle
    from shuffledeploy.api import check_parity as check_parity
    from shuffledeploy.api import compile as compile
    from shuffledeploy.api import load_bundle as load_bundle
    from shuffledeploy.api import open_bundle as open_bundle
    from shuffledeploy.api import tune as tune
    from shuffledeploy.model.errors import Failure as Failure
    from shuffledeploy.model.errors import UsageError as UsageError

_ERRORS = ("Failure", "UsageError")
_FUNCTIONS = ("OpenBundle", "check_parity", "compile", "load_bundle", "open_bundle", "tune")
__all__ = [
    "Failure", "OpenBundle", "UsageError", "check_parity", "compile", "load_bundle", "open_bundle",
    "tune",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import what is asked for."""
    if name in _ERRORS:
        return getattr(importlib.import_module("shuffledeploy.model.errors"), name)
    if name in _FUNCTIONS:
        return getattr(importlib.import_module("shuffledeploy.api"), name)
    raise AttributeError(f"module 'shuffledeploy' has no attribute {name!r}")
