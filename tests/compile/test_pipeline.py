"""The passes together: what they leave behind, show and refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import tvm
from stages import HOST, assert_same, draw, imported, lowered, run, seeded, shuffle_kernels
from torch import nn
from torch.nn import functional
from tvm import relax

from shuffledeploy.compiler.frontend.program import trace
from shuffledeploy.compiler.ir.inspection import kernel_functions, moves_only
from shuffledeploy.compiler.lowered_network import lower
from shuffledeploy.compiler.network import choose_schedules, write_bundle
from shuffledeploy.compiler.passes.graph.eliminate_channel_shuffle import eliminate_channel_shuffle
from shuffledeploy.compiler.passes.graph.fold_batch_norm import fold_batch_norm
from shuffledeploy.compiler.passes.memory.expose_intermediates import (
    INTERMEDIATES,
    expose_intermediates,
    kernel_calls,
)
from shuffledeploy.compiler.pipeline import Phase, Step, pipeline, run_steps
from shuffledeploy.model.errors import Failure, UsageError


@pytest.mark.smoke
def test_intermediates_are_what_the_kernels_write() -> None:
    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(2, 3, 1), nn.Conv2d(3, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(torch.relu(self.a(x))).mean((2, 3))

    network = seeded(Chain())
    module = expose_intermediates(lowered(imported(network, 1, 2, 5, 5).module))
    value = draw(1, 2, 5, 5)
    answers = run(module, value.numpy(), entry=INTERMEDIATES)
    assert len(answers) == len(kernel_calls(module)) == 3
    first = torch.relu(network.a(value)).detach().permute(0, 2, 3, 1)
    second = network.b(torch.relu(network.a(value))).detach().permute(0, 2, 3, 1)
    np.testing.assert_allclose(answers[0], first.numpy(), atol=1e-5)
    np.testing.assert_allclose(answers[1], second.numpy(), atol=1e-5)
    assert_same(run(module, value.numpy()), network, value)


def test_kernels_that_only_move_are_told_from_those_that_compute() -> None:
    class Joins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([self.a(x), self.b(x)], 1).mean((2, 3))

    module = lowered(imported(seeded(Joins()), 1, 4, 4, 4).module)
    functions = kernel_functions(module)
    assert {n.split("_")[0] for n, f in functions.items() if moves_only(f)} == {"concat"}
    # A concatenation joins what was computed apart: it moves, and it is no shuffle.
    assert shuffle_kernels(module) == []


def test_the_pipeline_shows_the_module_after_every_pass(tmp_path: Path) -> None:
    network = seeded(nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4)))
    exported, folder = trace(network, (1, 2, 3, 3)), tmp_path / "ir"
    found = lower(exported, HOST, folder)
    chosen = choose_schedules(found, HOST, {})
    write_bundle(
        tmp_path / "bundle", found, chosen, HOST, network="two", normalisation=None, options={},
        dump_folder=folder, standalone="two",
    )  # fmt: skip
    steps = [("import", Phase.GRAPH), *((step.name, step.phase) for step in pipeline(HOST))]
    files = {name: f"{number:02d}_{name}.py" for number, (name, _) in enumerate(steps)}

    def shown(place: Path, *left_out: Phase) -> None:
        wanted = [files[name] for name, phase in steps if phase not in left_out]
        assert sorted(path.name for path in place.glob("*.py")) == wanted

    shown(folder, Phase.FUNCTION)
    shown(folder / "standalone", Phase.GRAPH, Phase.SCHEDULE, Phase.MEMORY, Phase.MACHINE)
    texts = {path.name[3:-3]: path.read_text() for path in folder.glob("*.py")}
    assert "batch_norm" in texts["import"]
    assert "batch_norm" not in texts["fold_batch_norm"]
    assert "call_tir" in texts["fuse_rest"]
    assert "T.sblock" in texts["part_last_tile"]
    assert "T.sblock" not in texts["lower_tir"]


def test_passes_leave_their_input_as_it_was() -> None:
    network = seeded(nn.Sequential(nn.Conv2d(2, 4, 1), nn.BatchNorm2d(4), nn.ReLU()))
    module = imported(network, 1, 2, 3, 3).module
    before = module.script()
    eliminate_channel_shuffle(fold_batch_norm(module))
    assert module.script() == before


def test_an_operator_without_code_is_named() -> None:
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((2, 3), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            answer = builder.emit_output(relax.op.sort(x))
        builder.emit_func_output(answer)
    with pytest.raises(UsageError, match=r"no code for these operators .*: sort$"):
        lowered(builder.get())


def test_a_pass_that_fails_is_named() -> None:
    def fails(module: tvm.IRModule) -> tvm.IRModule:
        raise ValueError("one line\nand what is wrong")

    step = Step(Phase.GRAPH, "my_pass", fails)
    with pytest.raises(Failure, match=r"the pass my_pass cannot take .*: and what is wrong$"):
        run_steps(tvm.IRModule(), [step])


def test_a_kernel_that_moves_under_a_condition_moves_only() -> None:
    """A frame of zeros around an image is chosen element by element, and computes nothing."""

    class Framed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.pad(x, (1, 2, 0, 1)).transpose(2, 3)

    functions = kernel_functions(lowered(imported(Framed(), 1, 3, 5, 6).module))
    assert functions
    assert all(moves_only(function) for function in functions.values())
