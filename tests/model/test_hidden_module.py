"""A run needs no PyTorch: TVM would import it, and take 2 s for that."""

from __future__ import annotations

import subprocess
import sys

import pytest

from shuffledeploy.model.hidden_module import hidden_module

RUNS_WITHOUT_TORCH = """
import sys
from shuffledeploy.model.hidden_module import hidden_module
with hidden_module("torch"):
    from shuffledeploy.deploy.actions.run_bundle import run_bundle
assert "tvm" in sys.modules
assert "torch" not in sys.modules
import torch
"""


def test_a_hidden_module_is_there_again_afterwards() -> None:
    sys.modules.pop("colorsys", None)
    with hidden_module("colorsys"), pytest.raises(ModuleNotFoundError, match="colorsys is hidden"):
        import colorsys
    import colorsys

    assert colorsys


def test_running_a_bundle_imports_tvm_and_no_pytorch() -> None:
    subprocess.run([sys.executable, "-c", RUNS_WITHOUT_TORCH], check=True)
