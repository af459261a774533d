"""Run a Relax module as it stands after any pass, and compare it with PyTorch."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
import tvm
from torch import nn
from tvm import tirx

from shuffledeploy.compiler.frontend.program import Program, import_program, trace
from shuffledeploy.compiler.host_machine import host_machine
from shuffledeploy.compiler.ir.graph import Array, bindings_of, operator
from shuffledeploy.compiler.ir.inspection import is_shuffle, kernel_functions
from shuffledeploy.compiler.kernels.schedules import scheduled
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.passes.graph.eliminate_channel_shuffle import eliminate_channel_shuffle
from shuffledeploy.compiler.passes.graph.fold_batch_norm import fold_batch_norm
from shuffledeploy.compiler.passes.graph.fuse_rest import fuse_rest
from shuffledeploy.compiler.passes.memory.expose_intermediates import kernel_calls
from shuffledeploy.compiler.passes.memory.replace_kernels import replace_kernels
from shuffledeploy.compiler.pipeline import Phase, pipeline, run_steps, steps_of
from shuffledeploy.compiler.targets import CompileTarget, find_target
from shuffledeploy.model.errors import UsageError

HOST: CompileTarget = find_target("host")
#: The same without LLVM's optimisation, which takes most of the time of a test.
QUICK = dataclasses.replace(HOST, options={**HOST.options, "opt-level": 0})
#: Largest error, in parts of the largest value that PyTorch gives (float32, a few layers).
TOLERANCE = 2e-5
#: A core whose vectors of 16 lanes move under masks, whatever this machine's are.
AVX512 = '{"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "skylake-avx512"}'
MOVES = ("relax.take", "relax.permute_dims", "relax.strided_slice", "relax.split", "relax.stack")


def avx512() -> CompileTarget:
    """Give the target `AVX512`, to read code for it; an aarch64 build of TVM may know no x86."""
    try:
        return find_target(AVX512)
    except UsageError as error:
        pytest.skip(str(error))


@functools.lru_cache(maxsize=2)
def imported(module: nn.Module, *shape: int) -> Program:
    """Trace and import a module for one input shape; remembered, for PyTorch takes its time."""
    return import_program(trace(module, shape))


def simplified(module: nn.Module, *shape: int) -> tvm.IRModule:
    """Import a module and run the passes before layouts are chosen."""
    return eliminate_channel_shuffle(fold_batch_norm(imported(module, *shape).module))


def count(module: tvm.IRModule) -> Counter[str]:
    """Count the operators that the entry function calls, ``relax.`` left off."""
    names = [operator(value) for _, value in bindings_of(module)]
    return Counter(name.removeprefix("relax.") for name in names if name)


def lowered(
    module: tvm.IRModule, core: Core = HOST.core, without: Sequence[str] = ()
) -> tvm.IRModule:
    """Run the whole pipeline on an imported module, some passes left out by name."""
    steps = steps_of(pipeline(dataclasses.replace(HOST, core=core)), Phase.GRAPH)
    return run_steps(module, [step for step in steps if step.name not in without])


def shuffle_kernels(module: tvm.IRModule) -> list[str]:
    """Names of the shuffle kernels that one inference of a lowered module calls."""
    functions = kernel_functions(module)
    calls = [name for _, name in kernel_calls(module)]
    return [name for name in calls if is_shuffle(functions[name])]


def with_schedules(
    module: tvm.IRModule, core: Core = HOST.core, schedule: Callable[..., Any] = scheduled
) -> tvm.IRModule:
    """Schedule every kernel of a lowered module."""
    functions = {n: schedule(f, core) for n, f in kernel_functions(module).items()}
    return replace_kernels(module, functions)


def finished(function: tirx.PrimFunc, *, fetches: bool = False) -> tirx.PrimFunc:
    """Do to a scheduled kernel what TVM's schedule primitives cannot say."""
    return finished_module(tvm.IRModule({"main": function}), fetches=fetches)["main"]


def finished_module(module: tvm.IRModule, *, fetches: bool = False) -> tvm.IRModule:
    """Do so to all kernels of a module."""
    steps = steps_of(pipeline(HOST), Phase.KERNEL)
    return run_steps(module, [s for s in steps if fetches or s.name != "fetch_next_weights"])


def lowered_for(
    target: CompileTarget, function: tirx.PrimFunc, until: str = "keep_on_stack"
) -> tirx.PrimFunc:
    """Finish a scheduled kernel and lower it for a target, up to a step of `Phase.CODE`."""
    named = tvm.IRModule({"main": finished(function).with_attr("global_symbol", "main")})
    steps = steps_of(pipeline(target), Phase.CODE)
    last = [step.name for step in steps].index(until)
    with target.tvm_target:
        bound = tirx.transform.BindTarget(target.tvm_target)(named)
        (done,) = run_steps(bound, steps[: last + 1]).functions.values()
    return done


def run(
    module: tvm.IRModule, *inputs: Array, entry: str = "main", target: CompileTarget = QUICK
) -> list[Array]:
    """Run a module at any stage on this machine; operators that are left go TVM's way."""
    left = {operator(value) for _, value in bindings_of(module)} - {
        "",
        "relax.call_tir",
        "relax.call_tir_inplace",
        "relax.reshape",
    }
    with host_machine(fuse_rest(module) if left else module, target) as machine:
        answer = machine[entry](*(tvm.runtime.tensor(value) for value in inputs))
        return [part.numpy() for part in flat(answer)]


def assert_same_bits(
    before: tvm.IRModule,
    after: tvm.IRModule,
    *inputs: Array,
    entry: str = "main",
    target: CompileTarget = HOST,
) -> list[Array]:
    """Run two modules, whose answers must not differ in a bit; give the second's."""
    expected, actual = (run(m, *inputs, entry=entry, target=target) for m in (before, after))
    assert len(actual) == len(expected)
    for ours, theirs in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    return actual


def flat(answer: Any) -> list[Any]:
    """List the tensors of an answer that may be nested."""
    if hasattr(answer, "shape"):
        return [answer]
    return [tensor for part in answer for tensor in flat(part)]


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Draw a standard normal input, always the same for a shape."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(11), dtype=dtype)


def assert_same(
    actual: Sequence[Array], network: nn.Module, *inputs: torch.Tensor, what: str = ""
) -> None:
    """Compare a module's answers with those of the network it was made from."""
    with torch.no_grad():
        expected = [tensor.numpy() for tensor in flat(network.eval()(*inputs))]
    assert len(actual) == len(expected)
    for number, (ours, theirs) in enumerate(zip(actual, expected, strict=True)):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype), f"{what}output {number}"
        assert np.isfinite(theirs).all(), f"{what}output {number}"
        error = float(np.abs(ours - theirs).max())
        assert error <= TOLERANCE * max(1.0, float(np.abs(theirs).max())), (
            f"{what}output {number}: error {error}"
        )


def assert_module_is(module: tvm.IRModule, network: nn.Module, *shape: int) -> None:
    """Run a module at its stage and compare it with the network."""
    value = draw(*shape)
    assert_same(run(module, value.numpy()), network, value)


def seeded(network: nn.Module, seed: int = 0) -> nn.Module:
    """Fill a network with weights that show a wrong order: none trivial, batch norm's neither."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: torch.Tensor, low: float, high: float) -> None:
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                assert layer.running_mean is not None
                assert layer.running_var is not None
                if layer.affine:
                    uniform(layer.weight, 0.5, 1.5)
                    uniform(layer.bias, -0.5, 0.5)
                uniform(layer.running_mean, -0.5, 0.5)
                uniform(layer.running_var, 0.5, 2.0)
            elif isinstance(layer, nn.Conv2d | nn.Linear):
                bound = (3.0 / max(1, layer.weight[0].numel())) ** 0.5
                uniform(layer.weight, -bound, bound)
                if layer.bias is not None:
                    uniform(layer.bias, -0.5, 0.5)
    return network.eval()
