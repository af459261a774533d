"""Networks without a runtime, and what tests do with them: load, call, list symbols."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from stages import HOST, seeded
from torch import Tensor, nn

from shuffledeploy.compiler.bundle.folder import Bundle, load_bundle
from shuffledeploy.compiler.frontend.program import trace_module
from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.lowered_network import lower
from shuffledeploy.compiler.network import choose_schedules, write_bundle
from shuffledeploy.compiler.targets import CompileTarget

NORMALISATION = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}


class SeveralOfEach(nn.Module):
    """Two inputs; an output that is an input, one that is returned twice, one that is constant."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)
        self.register_buffer("fixed", torch.arange(5.0))

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, ...]:
        y = self.layer(left + right)
        return y, right, y, self.fixed * 2


def standalone(
    folder: Path, module: nn.Module, *inputs: Tensor, name: str = "net",
    target: CompileTarget = HOST, normalisation: dict[str, list[float]] | None = None,
) -> Bundle:  # fmt: skip
    """Compile a module with default schedules, as a bundle and without a runtime."""
    exported = trace_module(seeded(module), inputs)
    lowered = lower(exported, target)
    write_bundle(
        folder / name, lowered, choose_schedules(lowered, target, {}), target, network=name,
        normalisation=normalisation, options={}, standalone=name,
    )  # fmt: skip
    return load_bundle(folder / name)


class Loaded:
    """The shared library of a bundle, in this process."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle, self.made = bundle, bundle.standalone
        self.library = ctypes.CDLL(str(bundle.standalone_library))
        self.workspace = aligned_bytes(self.made.workspace)

    def function(self, suffix: str) -> Callable[..., int]:
        found: Callable[..., int] = self.library[f"{self.made.name}_{suffix}"]
        return found

    def run(self, inputs: list[Array]) -> list[Array]:
        given = [aligned_copy(value) for value in inputs]
        answers = [np.zeros(t.shape, t.dtype) for t in self.bundle.manifest.outputs]
        places = [aligned_copy(answer) for answer in answers]
        pointers = [place.ctypes.data for place in (*given, *places, self.workspace)]
        assert self.function("run")(*map(ctypes.c_void_p, pointers)) == 0
        return [place.view(a.dtype).reshape(a.shape) for place, a in zip(places, answers)]


def aligned_bytes(size: int) -> Array:
    """Give memory from a multiple of 64 bytes on, filled with what is no number."""
    memory = np.full(size + 64, 255, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]


def aligned_copy(value: Array) -> Array:
    memory = aligned_bytes(value.nbytes)
    memory[:] = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
    return memory


def undefined(path: Path, *options: str) -> set[str]:
    """List what a file needs from others."""
    return symbols(path, "--undefined-only", *options)


def symbols(path: Path, *options: str) -> set[str]:
    nm = shutil.which("nm") or pytest.skip("this machine has no nm")
    command = [nm, "--format=posix", *options, str(path)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return {line.split()[0] for line in lines}
