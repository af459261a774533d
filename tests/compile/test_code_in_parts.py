"""A program in two parts: nothing is lost, what calls each other stays together, the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import tvm
from stages import QUICK, draw, imported, lowered, seeded, with_schedules
from strip_networks import SMALL, Units
from tvm import relax

from shuffledeploy.compiler.code_in_parts import in_two_parts
from shuffledeploy.compiler.ir.attributes import INTERNAL, attribute
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.library import compile_program, machine_program
from shuffledeploy.compiler.passes.memory.compute_in_strips import compute_in_strips
from shuffledeploy.compiler.passes.memory.compute_on_threads import compute_on_threads

SHAPE = (1, 3, 57, 45)


def _program(*, threads: int = 1) -> tvm.IRModule:
    unscheduled = lowered(imported(seeded(Units()), *SHAPE).module)
    module = with_schedules(unscheduled)
    if threads > 1:
        return machine_program(compute_on_threads(module, threads, fetches=False), QUICK)
    return machine_program(compute_in_strips(module, kernel_functions(unscheduled), SMALL), QUICK)


def test_what_calls_each_other_stays_together() -> None:
    program = _program()
    first, second = in_two_parts(program)
    assert second is not None
    parts = [kernel_functions(part) for part in (first, second)]
    names = [set(part) for part in parts]
    assert names[0] | names[1] == set(kernel_functions(program))
    assert not names[0] & names[1]
    assert all(names)
    internal = {n for part in parts for n, f in part.items() if attribute(f, INTERNAL)}
    assert internal, "strips call functions that nobody else calls"
    for part in parts:
        text = tvm.IRModule(part).script()
        assert all(text.count(f"{name}(") > 1 for name in internal & set(part))
    assert [f for f in second.functions.values() if isinstance(f, relax.Function)] == []


def test_a_program_of_few_kernels_stays_whole() -> None:
    program = machine_program(with_schedules(lowered(_small())), QUICK)
    assert in_two_parts(program) == (program, None)


def _small() -> tvm.IRModule:
    return imported(seeded(torch.nn.Conv2d(3, 4, 1)), 1, 3, 5, 5).module


def test_the_parts_answer_as_the_whole(tmp_path: Path) -> None:
    value = tvm.runtime.tensor(draw(*SHAPE).numpy())
    for threads in (1, 2):
        program, answers = _program(threads=threads), []
        for in_parts in (False, True):
            library = tmp_path / f"{threads}-{in_parts}.so"
            compile_program(program, QUICK, library, in_parts=in_parts)
            machine = relax.VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())
            answers.append(machine["main"](value)[0].numpy())
        np.testing.assert_array_equal(*answers)
