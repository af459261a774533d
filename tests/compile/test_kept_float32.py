"""Layers that stay float32 in another precision: found by name, computed so, told, refused."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
import tvm
from int8_networks import A76, SHAPE, Units
from stages import draw, imported, run, seeded, with_schedules
from torch import Tensor, nn

import shuffledeploy
from shuffledeploy.compiler.bundle.precision_text import precision_text
from shuffledeploy.compiler.int8_ranges import held_in_int8, with_int8_ranges
from shuffledeploy.compiler.ir.inspection import element_of, kernel_functions
from shuffledeploy.compiler.kept_float32 import with_kept_layers
from shuffledeploy.compiler.pipeline import Phase, pipeline, run_steps, steps_of
from shuffledeploy.compiler.targets import CompileTarget, find_target
from shuffledeploy.compiler.tune import main as tune
from shuffledeploy.model.errors import UsageError

HALF = find_target("cortex-a76").computing_in("float16")


class _Outer(nn.Module):
    """A network inside another one."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        return self.inside(x)


@functools.cache
def _units() -> nn.Module:
    """Give the network: one, so that it is traced once."""
    return seeded(Units())


@functools.cache
def _of_int8(*names: str) -> tvm.IRModule:
    return _lowered(A76, *names)


def _lowered(target: CompileTarget, *names: str) -> tvm.IRModule:
    """Lower the network, some of its layers kept."""
    program = imported(_units(), *SHAPE)
    module = program.module
    if names:
        kept, found = with_kept_layers(program, target, names)
        assert found == names
        module = kept.module
    if target is A76:
        module = with_int8_ranges(module, target, [[draw(*SHAPE).numpy()]])
    return run_steps(module, steps_of(pipeline(target), Phase.GRAPH))


def _reads(module: tvm.IRModule, name: str) -> list[str]:
    """Name the types of what the kernel reads whose name begins so, and of what it writes."""
    kernels = kernel_functions(module).items()
    kernel = next(function for found, function in kernels if found.startswith(name))
    return [str(kernel.params[0].dtype), str(kernel.params[1].dtype), element_of(kernel)]


def test_a_layer_kept_from_int8_reads_and_multiplies_float32() -> None:
    plain, kept = _of_int8(), _of_int8("expand")
    assert _reads(plain, "conv1x1_g3_30x12") == ["int8", "int32", "int8"]
    assert _reads(kept, "conv1x1_g3_30x12") == ["float32", "float32", "int8"]
    # The layer before writes float32, all others do as they did.
    assert _reads(kept, "depthwise") == ["int8", "int32", "float32"]
    assert len(kernel_functions(kept)) == len(kernel_functions(plain))
    assert len(held_in_int8(kept)) == len(held_in_int8(plain)) - 1


def test_fewer_layers_in_int8_come_nearer_to_pytorch() -> None:
    with torch.no_grad():
        expected = _units()(draw(*SHAPE)).numpy()
    answers = [
        run(with_schedules(_of_int8(*names), A76.core), draw(*SHAPE).numpy())[0]
        for names in ((), ("compress", "depthwise", "expand", "whole", "classifier"))
    ]
    errors = [np.abs(answer - expected).max() for answer in answers]
    assert errors[1] < 0.6 * errors[0]


def test_a_layer_kept_from_half_computes_in_float32() -> None:
    plain, kept = _lowered(HALF), _lowered(HALF, "whole")
    assert _reads(plain, "conv3x3_24x9") == ["float16"] * 3
    assert _reads(kept, "conv3x3_24x9")[1:] == ["float32"] * 2
    assert _reads(kept, "depthwise") == ["float16"] * 3
    answers = [run(with_schedules(m), draw(*SHAPE).numpy())[0] for m in (plain, kept)]
    assert np.abs(answers[0] - answers[1]).max() < 0.02 * answers[0].std()


def test_a_module_keeps_all_of_its_layers_and_a_wrong_name_tells_the_nearest() -> None:
    _, found = with_kept_layers(imported(_Outer(_units()), *SHAPE), A76, ["inside"])
    assert {"inside.compress", "inside.expand", "inside.classifier"} <= set(found)
    with pytest.raises(UsageError, match=r"no layer of this network is called 'expnd'.* expand"):
        with_kept_layers(imported(_units(), *SHAPE), A76, ["expnd"])


def test_a_bundle_tells_which_layers_are_kept(tmp_path: Path) -> None:
    bundle = shuffledeploy.compile(
        _units(), (draw(*SHAPE),), "cortex-a76", output=tmp_path / "bundle",
        precision="int8", keep_float32=["expand", "whole"],
    )  # fmt: skip
    assert set(bundle.manifest.kept_float32) == {"expand", "whole"}
    assert "; as was asked for in float32: " in precision_text(bundle.manifest)


def test_keeping_goes_with_another_precision(capsys: pytest.CaptureFixture[str]) -> None:
    assert tune(["--keep-float32", "expand"]) == 2
    assert "--keep-float32 goes with --precision" in capsys.readouterr().err


def test_nothing_is_kept_in_a_network_of_float32() -> None:
    with pytest.raises(UsageError, match="goes with --precision float16 or int8"):
        with_kept_layers(imported(_units(), *SHAPE), find_target("cortex-a76"), ["expand"])
