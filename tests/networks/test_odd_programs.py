"""Programs of the kinds that users bring answer as PyTorch does, or are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from odd_functions import FUNCTIONS
from odd_layers import LAYERS
from odd_programs import Odd

import shuffledeploy
from shuffledeploy.compiler.frontend.program import load_program
from shuffledeploy.model.errors import UsageError

pytestmark = pytest.mark.long

ODD = {**LAYERS, **FUNCTIONS}
#: What cannot be compiled, with a word of the line that says so.
REFUSED = {
    "half": "convolution.default computes in float16",
    "bfloat16": "bfloat16 cannot be inputs",
    "bfloat16_inside": "mul.Tensor computes in bfloat16",
    "changes_buffer": "changes its buffer 'calls'",
    "empty_input": "has no elements",
    "embedding_bag": "_embedding_bag",
    "max_pool_indices": "max_pool2d_with_indices.* indices are read",
    "cummax": "aten.cummax",
    "antialiased": "_upsample_bilinear2d_aa",
    "random": "rand.default",
    "bernoulli": "draws random numbers",
    "nonzero": "nonzero.default",
    "complex": "_fft_r2c.* complex",
    "determinant": "_linalg_det",
}


def _parity(odd: Odd, folder: Path) -> Any:
    """Compile a program for this machine and compare it; it goes through a file, as users' do."""
    path = folder / "odd.pt2"
    torch.export.save(odd.traced(), path)
    bundle = shuffledeploy.compile(load_program(path), target="host", output=folder / "bundle")
    return shuffledeploy.check_parity(bundle)


@pytest.mark.parametrize("name", [name for name in ODD if name not in REFUSED])
def test_an_odd_program_answers_as_pytorch(name: str, tmp_path: Path) -> None:
    parity = _parity(ODD[name], tmp_path)
    assert parity.passed, parity.verdict


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_compiled_is_refused_by_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=REFUSED[name]) as raised:
        _parity(ODD[name], tmp_path)
    assert "\n" not in str(raised.value)
    with pytest.raises(UsageError, match=REFUSED[name]):
        shuffledeploy.compile(ODD[name].traced(), target="host", output=tmp_path / "bundle")
