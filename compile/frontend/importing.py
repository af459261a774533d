"""TVM's importer with this project's converters: what fails is told by the operator's name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
from torch import fx
from torch.export import ExportedProgram
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from shuffledeploy.compiler.frontend.converters import Converter
from shuffledeploy.compiler.frontend.core_program import OWN_CONVERTERS
from shuffledeploy.model.errors import UsageError
from shuffledeploy.model.printable import printable_line


def imported(program: ExportedProgram) -> tvm.IRModule:
    """Import a program of operators that all have a converter, its weights as constants.

    Raises
    ------
    UsageError
        If a converter cannot take what it is given: names the operator.
    """
    importer = ExportedProgramImporter()
    stock = {name: _of_tvm(convert) for name, convert in importer.convert_map.items()}
    converters = {name: _by_name(convert) for name, convert in {**stock, **OWN_CONVERTERS}.items()}
    return importer.from_exported_program(program, False, False, False, converters)


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
