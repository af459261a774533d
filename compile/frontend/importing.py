"""TVM's importer with this project's converters: what fails is told by the operator's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import tvm
from torch import fx
from torch.export import ExportedProgram
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from shuffledeploy.compiler.frontend.call_arguments import Converter
from shuffledeploy.compiler.frontend.converters import CONVERTERS
from shuffledeploy.model.errors import UsageError
from shuffledeploy.model.printable import printable_line


def imported(program: ExportedProgram, *, with_all: bool = False) -> tvm.IRModule:
    """Import a program of operators that all have a converter, its weights as constants.

    Parameters
    ----------
    program : ExportedProgram
        What `compiler.frontend.core_program.core_program` gave.
    with_all : bool
        Whether the answer has, in their order, the tensors that all calls of the program give.

    Raises
    ------
    UsageError
        If a converter cannot take what it is given: names the operator.
    """
    importer = _Telling() if with_all else ExportedProgramImporter()
    stock = {name: _of_tvm(convert) for name, convert in importer.convert_map.items()}
    converters = {name: _by_name(convert) for name, convert in {**stock, **CONVERTERS}.items()}
    return importer.from_exported_program(program, False, False, False, converters)


def tensor_calls(program: ExportedProgram) -> list[fx.Node]:
    """List the calls that give one tensor, in their order."""
    calls = (node for node in program.graph.nodes if node.op == "call_function")
    return [node for node in calls if isinstance(node.meta.get("val"), torch.Tensor)]


class _Telling(ExportedProgramImporter):
    """Imports a program whose answer is what each of its calls gives."""

    def _translate_fx_graph(
        self, graph_module: Any, nodes: Any, inputs_vars: Any, custom_ops: Any = None
    ) -> Any:
        answer = super()._translate_fx_graph(graph_module, nodes, inputs_vars, custom_ops)
        if not isinstance(graph_module, ExportedProgram | fx.GraphModule) or not inputs_vars:
            return answer
        return tuple(
            self.env[node] for node in nodes
            if node.op == "call_function" and isinstance(node.meta.get("val"), torch.Tensor)
        )  # fmt: skip


def _of_tvm(convert: Callable[[fx.Node], Any]) -> Converter:
    return lambda node, _: convert(node)


def _by_name(convert: Converter) -> Converter:
    def named(node: fx.Node, importer: Any) -> Any:
        try:
            return convert(node, importer)
        except UsageError:
            raise
        except Exception as error:
            reason = printable_line(str(error)) or type(error).__name__
            raise UsageError(f"{node.target} cannot be imported: {reason}") from error

    return named
