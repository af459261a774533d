"""What a manifest tells of a library: read from the module that it is built of."""

from __future__ import annotations

import platform
from importlib import metadata

import tvm

from shuffledeploy.compiler.bundle.manifest import StripCall
from shuffledeploy.compiler.ir.attributes import JOINED_IN_PLACE, STRIPS, attribute, kernel_of
from shuffledeploy.compiler.ir.graph import ENTRY
from shuffledeploy.compiler.ir.inspection import kernel_functions
from shuffledeploy.compiler.passes.memory.expose_intermediates import kernel_calls


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
