"""Tensors in a program that cannot be weights are named, each by one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from programs import Small
from torch import nn

from shuffledeploy.compiler.frontend.program import import_program, load_program, trace
from shuffledeploy.model.errors import UsageError


class Added(nn.Module):
    """Adds a buffer that may be of any kind."""

    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("shift", value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.shift


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.eye(3).to_sparse(), "shift is sparse"),
        (torch.eye(3).to_sparse_csr(), "shift is sparse"),
        (torch.eye(3, dtype=torch.complex64), "shift is complex64"),
        (torch.eye(3) * float("nan"), "shift holds NaN"),
    ],
)
def test_kinds_that_are_not_weights_are_named(value: torch.Tensor, message: str) -> None:
    with pytest.raises(UsageError, match=f"cannot be weights: {message}"):
        import_program(trace(Added(value), (3, 3)))


def test_a_weight_without_values_is_named() -> None:
    with torch.device("meta"):
        exported = torch.export.export(Small().eval(), (torch.zeros(1, 3, 4, 4),))
    with pytest.raises(UsageError, match=r"conv\.weight has no values here .*meta"):
        import_program(exported)


def test_complex_weights_in_a_file_are_named(tmp_path: Path) -> None:
    exported = trace(Added(torch.eye(3, dtype=torch.complex64)), (3, 3))
    torch.export.save(exported, tmp_path / "complex.pt2")
    with pytest.raises(UsageError, match="shift is complex64"):
        import_program(load_program(tmp_path / "complex.pt2"))


@pytest.mark.parametrize("value", [torch.eye(3) > 0, torch.eye(3, dtype=torch.int64)])
def test_masks_and_counters_are_taken(value: torch.Tensor) -> None:
    import_program(trace(Added(value), (3, 3)))


def test_negative_variances_are_named() -> None:
    module = Small()
    module.norm.running_var[2] = -0.5
    with pytest.raises(UsageError, match=r"norm\.running_var holds negative variances"):
        import_program(trace(module, (1, 3, 4, 4)))
