"""What PyTorch computes inside of a program: the tensor that each of its calls gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.utils._pytree import tree_flatten

from shuffledeploy.compiler.frontend.importing import tensor_calls
from shuffledeploy.compiler.ir.graph import Array

Kept = TypeVar("Kept")


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch compute in one thread within a block.

    Several wait for each other in loops, which beside other work takes longer than all of theirs.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def tensors_of_calls(
    program: ExportedProgram, inputs: list[Array], keep: Callable[[Array], Kept]
) -> list[Kept]:
    """Run a program in PyTorch; list what its calls give, as `tensor_calls` lists them.

    Parameters
    ----------
    program : ExportedProgram
        What `compiler.frontend.core_program.core_program` gave.
    inputs : list of Array
        In the order of the program's inputs.
    keep : Callable
        What to keep of a tensor, whose memory a later call may write over: `numpy.copy` keeps all.
    """
    return _Values(program, keep).told(inputs)


def layer_of(call: fx.Node) -> str:
    """Name the module of the network that a call belongs to; the call where it has no name."""
    modules = [path for path, _ in call.meta.get("nn_module_stack", {}).values() if path]
    return modules[-1] if modules else call.name


class _Values(fx.Interpreter, Generic[Kept]):
    """Runs a program in PyTorch and keeps something of what each call gives."""

    def __init__(self, program: ExportedProgram, keep: Callable[[Array], Kept]) -> None:
        super().__init__(program.graph_module)
        self._program, self._keep = program, keep
        self._wanted = set(tensor_calls(program))
        self._told: list[Kept] = []

    def told(self, inputs: list[Array]) -> list[Kept]:
        """List what is kept of the tensors that the program's calls give, in order."""
        program, given = self._program, [torch.from_numpy(value.copy()) for value in inputs]
        held = {**program.state_dict, **program.constants}
        user = iter(tree_flatten(given)[0])
        arguments = [
            held[spec.target] if spec.target in held else next(user)
            for spec in program.graph_signature.input_specs
        ]
        with torch.no_grad(), one_thread():
            self.run(*arguments)
        return self._told

    def run_node(self, n: fx.Node) -> object:
        """Run one node."""
        result = super().run_node(n)
        if n in self._wanted and isinstance(result, torch.Tensor):
            self._told.append(self._keep(result.numpy()))
        return result
