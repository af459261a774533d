"""A program in parts: nothing is lost, what calls each other stays together, the same numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tvm
from stages import QUICK, draw, imported, lowered, seeded, with_schedules
from strip_networks import SMALL, Units
from tvm import relax, tirx

from shuffledeploy.compiler.code_in_parts import in_parts
from shuffledeploy.compiler.ir.attributes import INTERNAL, attribute
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.library import compile_program, machine_program
from shuffledeploy.compiler.passes.memory.compute_in_strips import compute_in_strips
from shuffledeploy.compiler.passes.memory.compute_on_threads import compute_on_threads
from shuffledeploy.compiler.pipeline import Dump, pipeline

SHAPE = (1, 3, 57, 45)


def _program(*, threads: int = 1) -> tvm.IRModule:
    unscheduled = lowered(imported(seeded(Units()), *SHAPE).module)
    module = with_schedules(unscheduled)
    if threads > 1:
        return machine_program(compute_on_threads(module, threads, fetches=False), QUICK)
    return machine_program(compute_in_strips(module, kernel_functions(unscheduled), SMALL), QUICK)


def _is_internal(program: tvm.IRModule, name: str) -> bool:
    return bool(attribute(program[name], INTERNAL))


def test_what_calls_each_other_stays_together() -> None:
    program = _program()
    rest, parts = in_parts(program)
    names = [set(kernel_functions(part)) for part in (rest, *parts)]
    assert sorted(name for part in names for name in part) == sorted(kernel_functions(program))
    assert all(names)
    internal = {name for name in kernel_functions(program) if _is_internal(program, name)}
    assert internal, "strips call functions that nobody else calls"
    for part, own in zip((rest, *parts), names, strict=True):
        text = part.script()
        assert all(text.count(f"{name}(") > 1 for name in internal & own)
    assert all(isinstance(f, tirx.PrimFunc) for part in parts for f in part.functions.values())


def test_the_program_calls_by_name_what_stands_elsewhere() -> None:
    program = _program()
    rest, parts = in_parts(program)
    elsewhere = {name for part in parts for name in kernel_functions(part)}
    assert not any(variable.name_hint in elsewhere for variable in rest.functions)
    text = rest.script()
    assert all(f'"{name}"' in text for name in elsewhere if not _is_internal(program, name))


def test_the_smallest_kernel_stays_with_the_program() -> None:
    rest, parts = in_parts(_program())
    assert len(kernel_functions(rest)) == 1
    # TVM makes no library of what has no code.
    alone, none = in_parts(rest)
    assert none == []
    tvm.ir.assert_structural_equal(alone, rest)
    assert len(parts) > 1


def test_the_parts_answer_as_the_whole(tmp_path: Path) -> None:
    value = tvm.runtime.tensor(draw(*SHAPE).numpy())
    steps = pipeline(QUICK)
    for threads in (1, 2):
        program, answers = _program(threads=threads), []
        # What is shown after each step stays whole.
        for dump in (Dump(), Dump.of(tmp_path / f"steps_{threads}", steps)):
            library = tmp_path / f"{threads}-{dump.folder is None}.so"
            compile_program(program, QUICK, library, dump)
            machine = relax.VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())
            answers.append(machine["main"](value)[0].numpy())
        np.testing.assert_array_equal(*answers)
