"""What PyTorch computes inside of a program: the tensor that each of its calls gives."""

from __future__ import annotations

import numpy as np
import torch
from torch import fx
from torch.export import ExportedProgram
from torch.utils._pytree import tree_flatten

from shuffledeploy.compiler.frontend.importing import tensor_calls
from shuffledeploy.compiler.ir.graph import Array


def tensors_of_calls(program: ExportedProgram, inputs: list[Array]) -> list[Array]:
    """Run a program in PyTorch; list what its calls give, as `tensor_calls` lists them.

    Parameters
    ----------
    program : ExportedProgram
        What `compiler.frontend.core_program.core_program` gave.
    inputs : list of Array
        In the order of the program's inputs.
    """
    return _Values(program).told(inputs)


class _Values(fx.Interpreter):
    """Runs a program in PyTorch and keeps what each call gives."""

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__(program.graph_module)
        self._program = program
        self._wanted = set(tensor_calls(program))
        self._told: list[Array] = []

    def told(self, inputs: list[Array]) -> list[Array]:
        """List the tensors that the program's calls give, in order."""
        program, given = self._program, [torch.from_numpy(value.copy()) for value in inputs]
        held = {**program.state_dict, **program.constants}
        user = iter(tree_flatten(given)[0])
        arguments = [
            held[spec.target] if spec.target in held else next(user)
            for spec in program.graph_signature.input_specs
        ]
        with torch.no_grad():
            self.run(*arguments)
        return self._told

    def run_node(self, n: fx.Node) -> object:
        """Run one node."""
        result = super().run_node(n)
        if n in self._wanted and isinstance(result, torch.Tensor):
            self._told.append(np.array(result.numpy()))
        return result
