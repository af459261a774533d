"""What makes a network differ from PyTorch is named: the operator, or the pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import tvm
from stages import HOST, draw, run, with_schedules
from torch import nn
from tvm import relax

import shuffledeploy
from shuffledeploy.compiler import pipeline
from shuffledeploy.compiler.frontend import importing
from shuffledeploy.compiler.ir.graph import operator, rewrite, substitute
from shuffledeploy.compiler.lowered_network import lower
from shuffledeploy.model.errors import Failure, UsageError


def _network() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ELU(), nn.Conv2d(4, 2, 1)
    return nn.Sequential(*layers).eval(), (torch.zeros(1, 3, 4, 4),)


def _without_relu(module: tvm.IRModule) -> tvm.IRModule:
    def replace(_: relax.BlockBuilder, __: relax.Var, value: Any, current: Any) -> Any:
        return substitute(value.args[0], current) if operator(value) == "relax.nn.relu" else None

    return rewrite(module, replace)


def test_an_operator_that_is_imported_wrongly_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def wrong(node: Any, importer: Any) -> Any:
        return importer.block_builder.emit(relax.op.nn.relu(importer.env[node.args[0]]))

    monkeypatch.setitem(importing.CONVERTERS, "elu.default", wrong)
    with pytest.raises(UsageError, match=r"from its aten\.elu\.default \(elu\) on it computes"):
        shuffledeploy.compile(*_network(), target="host", output=tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("name", ["fold_batch_norm", "write_in_read_order", "simplify_pools"])
def test_a_pass_that_changes_an_answer_is_named(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def wrong(module: tvm.IRModule, **_: Any) -> tvm.IRModule:
        return _without_relu(module)

    monkeypatch.setattr(pipeline, name, wrong)
    with pytest.raises(Failure, match=rf"the pass {name} changes what this network computes"):
        shuffledeploy.compile(*_network(), target="host", output=tmp_path / "bundle")


class _Rows(nn.Module):
    """Rows and elements at indices that are an input."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.arange(12.0).reshape(4, 3))

    def forward(self, index: torch.Tensor) -> tuple[torch.Tensor, ...]:
        gathered = self.table.gather(0, index.reshape(1, 2).expand(1, 2))
        both = self.table[index, index]
        return self.table[index], gathered, both


@pytest.mark.parametrize(("given", "read"), [(-1, 3), (-9, 0), (3, 3), (9, 3), (2**40, 3)])
def test_an_index_that_is_an_input_stays_in_range(given: int, read: int) -> None:
    exported = torch.export.export(_Rows(), (torch.tensor([0, 1]),))
    module = with_schedules(lower(exported, HOST).module)
    rows, gathered, _ = run(module, torch.tensor([given, 0]).numpy())
    table = _Rows().table.detach().numpy()
    assert (rows == table[[read, 0]]).all()
    assert gathered[0, 0] == table[read, 0]


def test_a_constant_index_out_of_range_is_refused() -> None:
    class Beside(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, self.index]

        index = torch.tensor([0, 2])

    exported = torch.export.export(Beside(), (draw(1, 3),))
    exported.constants[next(iter(exported.constants))].fill_(7)
    with pytest.raises(UsageError, match=r"reads index 7 of an axis of 3 elements"):
        lower(exported, HOST)
