"""Constants stay in the library: equal numbers, kept once, and never copied into memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import tvm
from stages import (
    HOST,
    QUICK,
    assert_same,
    draw,
    flat,
    imported,
    lowered,
    run,
    seeded,
    with_schedules,
)
from torch import nn
from tvm import relax

from shuffledeploy.compiler.ir.constants import CONSTANTS
from shuffledeploy.compiler.ir.graph import bindings_of, constant_of, operator
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.ir.memory_layout import ALIGNMENT
from shuffledeploy.compiler.library import build_library
from shuffledeploy.compiler.passes.memory.constants_in_place import (
    constant_bytes,
    constants_in_place,
)

PROJECT = Path(__file__).resolve().parents[2]


def _wide(side: int) -> nn.Module:
    return seeded(nn.Sequential(nn.Linear(side, side), nn.ReLU()))


def test_no_constant_is_left_to_the_virtual_machine() -> None:
    module = with_schedules(lowered(imported(_wide(32), 1, 32).module))
    in_place = constants_in_place(module)
    fields = [
        field
        for _, value in bindings_of(in_place)
        if operator(value) == "relax.call_tir"
        for field in value.args[1].fields
    ]
    assert not any(constant_of(field) is not None for field in fields)
    sizes = [tensor.numpy().nbytes for tensor in in_place.attrs[CONSTANTS]]
    assert sum(sizes) == sum(constant_bytes(module).values()) == 4 * (32 * 32 + 32)


def test_a_kernel_that_reads_a_constant_in_one_call_only_keeps_its_parameter() -> None:
    """The same product, by a weight and by what was computed."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(draw(1, 8, 8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.bmm(torch.bmm(x, self.weight), torch.relu(x))

    module = with_schedules(lowered(imported(Twice(), 1, 8, 8).module))
    assert_same(run(module, draw(1, 8, 8).numpy()), Twice(), draw(1, 8, 8))


def test_equal_constants_are_kept_once() -> None:
    first, second = (seeded(nn.Linear(5, 5)) for _ in range(2))
    module = with_schedules(lowered(imported(nn.Sequential(first, nn.ReLU(), second), 1, 5).module))
    weight, bias = constants_in_place(module).attrs[CONSTANTS]
    assert bias.numpy().nbytes < weight.numpy().nbytes
    second_start = weight.numpy().nbytes + -weight.numpy().nbytes % ALIGNMENT
    calls = [
        value.args[1].fields
        for _, value in bindings_of(constants_in_place(module))
        if operator(value) == "relax.call_tir"
    ]
    starts = [[int(f) for f in fields if not isinstance(f, relax.Var)] for fields in calls]
    assert starts == [[0, second_start]] * 2


@pytest.mark.parametrize("name", ['a "quoted" name', "back\\slash", "größer"])
def test_a_library_is_built_in_any_folder(name: str, tmp_path: Path) -> None:
    module = with_schedules(lowered(imported(_wide(32), 1, 32).module))
    (tmp_path / name).mkdir()
    library = tmp_path / name / "network.so"
    build_library(module, QUICK, library)
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())
    answer = machine["main"](tvm.runtime.tensor(draw(1, 32).numpy()))
    assert_same([part.numpy() for part in flat(answer)], _wide(32), draw(1, 32))


RESIDENT = """
import json, sys
import numpy as np
from shuffledeploy.deploy.benchmark import memory
from shuffledeploy.deploy.benchmark.our_engine import load
before = memory.resident_kb()
memory.forget_peak()
network = load({"library": sys.argv[1]}, 1)
network.set_input(np.ones((1, 2048), np.float32))
network.run()
print(json.dumps(memory.peak_kb() - before))
"""


@pytest.mark.smoke
def test_weights_are_resident_once_even_while_loading(tmp_path: Path) -> None:
    """16 MiB of them; TVM's own pool makes that 64 while it is read, and 32 from then on."""
    side, library = 2048, tmp_path / "network.so"
    module = with_schedules(lowered(imported(_wide(side), 1, side).module))
    build_library(module, HOST, library)
    told = subprocess.run(
        [sys.executable, "-c", RESIDENT, str(library)],
        capture_output=True, text=True, check=True, cwd=PROJECT,
    )  # fmt: skip
    weights = 4 * side * side / 1024
    assert weights < json.loads(told.stdout) < 1.8 * weights


def test_kernels_of_several_layers_find_each_its_own() -> None:
    network = seeded(nn.Sequential(*(nn.Linear(16, 16) for _ in range(3))))
    module = with_schedules(lowered(imported(network, 1, 16).module))
    assert len(kernel_functions(module)) == 1
    assert_same(run(module, draw(1, 16).numpy()), network, draw(1, 16))
