"""What a manifest tells of a library: read from the module and kernels that it is built of."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata
from typing import TYPE_CHECKING

import tvm

from shuffledeploy.compiler.bundle.manifest_entries import KernelEntry, StripCall
from shuffledeploy.compiler.ir.attributes import (
    JOINED_IN_PLACE,
    OPERATORS,
    STRIPS,
    attribute,
    kernel_of,
)
from shuffledeploy.compiler.ir.graph import ENTRY
from shuffledeploy.compiler.ir.inspection import element_of, kernel_functions, moves_only
from shuffledeploy.compiler.kernels.images import multiply_adds_of
from shuffledeploy.compiler.passes.memory.constants_in_place import constant_bytes
from shuffledeploy.compiler.passes.memory.expose_intermediates import kernel_calls

if TYPE_CHECKING:
    from shuffledeploy.compiler.lowered_network import Lowered
    from shuffledeploy.compiler.network import Chosen


def strip_calls(module: tvm.IRModule) -> tuple[StripCall, ...]:
    """List the calls of one inference that compute several kernels strip by strip."""
    functions = {variable.name_hint: function for variable, function in module.functions.items()}
    calls = [(name, attribute(functions[name], STRIPS)) for _, name in kernel_calls(module)]
    return tuple(StripCall(name, tuple(map(str, kernels))) for name, kernels in calls if kernels)


def joined_in_place(module: tvm.IRModule) -> tuple[str, ...]:
    """List the concatenations that are not called, since their parts stand where they belong."""
    return tuple(map(str, attribute(module[ENTRY], JOINED_IN_PLACE) or ()))


def symbols_of(module: tvm.IRModule) -> dict[str, str]:
    """List the functions that do the work of a kernel of another name, each with that name."""
    functions = kernel_functions(module).items()
    return {name: of for name, f in functions if (of := kernel_of(f, name)) != name}


def versions() -> dict[str, str]:
    """Versions of what made a bundle."""
    names = ("apache-tvm", "apache-tvm-ffi", "torch", "numpy", "xgboost")
    found = {name: metadata.version(name) for name in names}
    return {**found, "python": platform.python_version()}


def kernel_entries(lowered: Lowered, chosen: Mapping[str, Chosen]) -> tuple[KernelEntry, ...]:
    """Describe each kernel for the manifest, the heaviest first."""
    counts = {name: lowered.calls.count(name) for name in dict.fromkeys(lowered.calls)}
    scores = {n: own.score if (own := chosen[n].own_record) is not None else None for n in counts}
    work = {name: multiply_adds_of(lowered.kernels[name]) for name in counts}
    scored = {name: score for name, score in scores.items() if score is not None}
    sources = {c.record.source for c in chosen.values() if c.record is not None}
    costs = scored if len(scored) == len(counts) and len(sources) == 1 else work
    weights = {name: costs[name] * counts[name] for name in counts}
    total = sum(weights.values()) or 1
    constants = constant_bytes(lowered.module)
    entries = [
        KernelEntry(
            name, counts[name], work[name], weights[name] / total,
            chosen[name].record is not None, scores[name], moves_only(lowered.kernels[name]),
            constants.get(name, 0), element_of(lowered.kernels[name]),
            tuple(map(str, attribute(lowered.kernels[name], OPERATORS) or ())),
        )
        for name in counts
    ]  # fmt: skip
    return tuple(sorted(entries, key=lambda entry: -entry.share))
