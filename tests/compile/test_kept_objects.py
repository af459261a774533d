"""Kernels are compiled once: the next program takes their objects from the cache."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import tvm
from stages import QUICK, imported, lowered, seeded, with_schedules

from shuffledeploy.compiler import kept_objects, library
from shuffledeploy.compiler.kept_objects import forget_old_objects
from shuffledeploy.compiler.library import compile_program, machine_program
from shuffledeploy.compiler.targets import CompileTarget
from shuffledeploy.model.errors import Failure


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the folder of kept objects, which is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "shuffledeploy" / "kernels"


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give the names of the kernels that were compiled, as it goes."""
    names: list[str] = []
    write = library._write_object

    def noting(kernels: tvm.IRModule, target: CompileTarget, path: Path) -> None:
        names.extend(variable.name_hint for variable in kernels.functions)
        write(kernels, target, path)

    monkeypatch.setattr(library, "_write_object", noting)
    return names


#: Of the four kernels of `_program`; the smallest is compiled with the program.
OBJECTS = 3


def _program(channels: int = 4) -> tvm.IRModule:
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 1), torch.nn.Conv2d(4, 8, 3), torch.nn.Conv2d(8, channels, 3)
    )
    return machine_program(
        with_schedules(lowered(imported(seeded(layers), 1, 3, 9, 9).module)), QUICK
    )


def test_the_second_time_nothing_is_compiled(tmp_path: Path, compiled: list[str]) -> None:
    libraries = [tmp_path / "first.so", tmp_path / "second.so"]
    compile_program(_program(), QUICK, libraries[0])
    assert len(compiled) == OBJECTS
    compile_program(_program(), QUICK, libraries[1])
    assert len(compiled) == OBJECTS
    assert libraries[0].read_bytes() == libraries[1].read_bytes()


def test_only_what_changed_is_compiled(tmp_path: Path, compiled: list[str]) -> None:
    compile_program(_program(), QUICK, tmp_path / "first.so")
    known = set(compiled)
    compile_program(_program(channels=5), QUICK, tmp_path / "second.so")
    (changed,) = compiled[len(known) :]
    assert changed not in known
    assert "8x5" in changed


@pytest.mark.parametrize("content", [b"", b"no object", bytes(5000)])
def test_a_damaged_object_is_made_again(
    content: bytes, tmp_path: Path, kept: Path, compiled: list[str]
) -> None:
    compile_program(_program(), QUICK, tmp_path / "first.so")
    for path in kept.iterdir():
        path.write_bytes(content)
    compile_program(_program(), QUICK, tmp_path / "second.so")
    assert len(compiled) == 2 * OBJECTS
    compile_program(_program(), QUICK, tmp_path / "third.so")
    assert len(compiled) == 2 * OBJECTS


def test_another_target_and_another_compiler_take_objects_of_their_own(
    tmp_path: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_program(_program(), QUICK, tmp_path / "first.so")
    options: dict[str, Any] = {**QUICK.options, "opt-level": 1}
    compile_program(_program(), dataclasses.replace(QUICK, options=options), tmp_path / "b.so")
    assert len(compiled) == 2 * OBJECTS
    monkeypatch.setattr(kept_objects, "_compiler", lambda: "edited")
    compile_program(_program(), QUICK, tmp_path / "third.so")
    assert len(compiled) == 3 * OBJECTS


def test_without_a_cache_of_ones_own_nothing_is_kept(
    tmp_path: Path, kept: Path, compiled: list[str]
) -> None:
    kept.parent.mkdir(mode=0o700)
    kept.parent.chmod(0o777)
    for place in range(2):
        compile_program(_program(), QUICK, tmp_path / f"{place}.so")
    assert len(compiled) == 2 * OBJECTS
    assert not kept.exists()


def test_a_kernel_that_fails_is_not_kept(
    tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise Failure("TVM cannot compile this network")

    monkeypatch.setattr(library, "_write_object", fail)
    with pytest.raises(Failure, match="cannot compile"):
        compile_program(_program(), QUICK, tmp_path / "first.so")
    assert list(kept.iterdir()) == []
    assert not (tmp_path / "first.so").exists()


def test_those_go_that_were_not_used_for_the_longest_time(kept: Path) -> None:
    kept.mkdir(mode=0o700, parents=True)
    for age in range(8):
        path = kept / f"object_{age}"
        path.write_bytes(bytes(100))
        os.utime(path, (1000 - age, 1000 - age))
    forget_old_objects(800)
    assert len(list(kept.iterdir())) == 8
    forget_old_objects(799)
    assert sorted(path.name for path in kept.iterdir()) == [f"object_{age}" for age in range(5)]
