"""Programs on their way in: trace a module, read a saved program, import it into Relax."""

from __future__ import annotations

import dataclasses
import logging
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import tvm
from torch.export import ExportedProgram
from tvm import relax

from shuffledeploy.compiler.bundle.manifest_entries import Tensor, data_type
from shuffledeploy.compiler.frontend.core_program import core_program
from shuffledeploy.compiler.frontend.guarded_loading import no_code_from_programs
from shuffledeploy.compiler.frontend.importing import imported
from shuffledeploy.compiler.frontend.indices import indices_in_range
from shuffledeploy.compiler.frontend.program_archive import checked_copy
from shuffledeploy.compiler.ir.graph import ENTRY, bindings_of, operator, rewrite
from shuffledeploy.model.errors import UsageError
from shuffledeploy.model.printable import printable_line
from shuffledeploy.model.weights import weight_fault


@dataclasses.dataclass(frozen=True)
class Program:
    """An exported program and the same thing as a Relax module.

    Attributes
    ----------
    module : tvm.IRModule
        One function ``main``; the weights are constants in it.
    exported : ExportedProgram
        What PyTorch answers with: the oracle of every parity check.
    core : ExportedProgram
        The same of the few operators that were imported (`compiler.frontend.core_program`).
    inputs : tuple of Tensor
        The inputs, in the order of ``main``'s parameters.
    """

    module: tvm.IRModule
    exported: ExportedProgram
    core: ExportedProgram
    inputs: tuple[Tensor, ...]


def trace(module: torch.nn.Module, input_shape: tuple[int, ...]) -> ExportedProgram:
    """Trace a PyTorch module with `torch.export` for one fixed float32 input shape.

    Raises
    ------
    UsageError
        If the module cannot take an input of this shape.
    """
    return trace_module(module.eval(), (torch.zeros(input_shape),))


def trace_module(
    module: torch.nn.Module, example_inputs: tuple[torch.Tensor, ...]
) -> ExportedProgram:
    """Trace a PyTorch module with `torch.export` for the shapes of example inputs.

    Raises
    ------
    UsageError
        If the module cannot take them.
    """
    try:
        with torch.no_grad(), _quiet():
            return torch.export.export(module, example_inputs)
    except Exception as error:
        shapes = ", ".join(str(tuple(value.shape)) for value in example_inputs)
        raise UsageError(
            f"the network cannot be traced with an input of shape {shapes}: {_reason(error)}"
        ) from error


def load_program(path: Path) -> ExportedProgram:
    """Read a program saved with `torch.export.save` (a ``.pt2`` file).

    Raises
    ------
    UsageError
        If the file is missing, is not such a program, is cut short, or would run code of its own
        when it is opened (see `compiler.frontend.program_archive`).
    """
    if not path.is_file():
        raise UsageError(f"no program at {path}: save one with torch.export.save(program, path)")
    try:
        with _quiet(), no_code_from_programs():
            return torch.export.load(checked_copy(path))
    except zipfile.BadZipFile as error:
        raise UsageError(
            f"{path} is not a saved torch.export program, or it is damaged, cut short: "
            f"{_reason(error)}"
        ) from error
    except Exception as error:
        # On damaged files PyTorch raises whatever its parts do: RuntimeError, KeyError, IndexError,
        # AssertionError, SpecViolationError, UnpicklingError...
        reason = _reason(error)
        if "warnings above" in reason:
            reason = "it is damaged, cut short, or of another version of PyTorch"
        raise UsageError(f"{path} cannot be read as a torch.export program: {reason}") from error


def import_program(exported: ExportedProgram) -> Program:
    """Bring an exported program into Relax, its weights as constants.

    Raises
    ------
    UsageError
        If the program has dynamic shapes, weights that are none (see `model.weights.weight_fault`),
        or an operator that cannot be imported (see `compiler.frontend.core_program`); the message
        names it.
    """
    _check_weights(exported)
    inputs = input_specs(exported)
    try:
        with torch.no_grad(), _quiet():
            core = core_program(exported)
            module = imported(core)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"TVM cannot import this program: {_reason(error)}") from error
    return Program(tidied(module), exported, core, inputs)


def tidied(module: tvm.IRModule) -> tvm.IRModule:
    """Drop what nothing reads of an imported program, and keep its indices in range.

    Raises
    ------
    UsageError
        If a constant index is out of range.
    """
    # Operators of several results come as tuples of which nothing reads the rest.
    tidy = [relax.transform.CanonicalizeBindings(), relax.transform.DeadCodeElimination(["main"])]
    return indices_in_range(_without_nothing(tvm.transform.Sequential(tidy)(module)))


def _without_nothing(module: tvm.IRModule) -> tvm.IRModule:
    """Leave out the answers that are `None`."""
    definitions, result = dict(bindings_of(module)), module[ENTRY].body.body
    answers = definitions.get(result, result)

    def is_nothing(field: Any) -> bool:
        return operator(definitions.get(field, field)) == "relax.null_value"

    if not isinstance(answers, relax.Tuple) or not any(map(is_nothing, answers.fields)):
        return module
    kept = relax.Tuple([field for field in answers.fields if not is_nothing(field)])
    return rewrite(module, lambda *_: None, lambda _: kept)


def _check_weights(exported: ExportedProgram) -> None:
    constants = {k: v for k, v in exported.constants.items() if isinstance(v, torch.Tensor)}
    parameters = {name for name, _ in exported.named_parameters()}
    for name, tensor in {**exported.state_dict, **constants}.items():
        # A mask of attention, a buffer or a constant, may well hold infinity.
        fault = weight_fault(name, tensor, may_be_infinite=name not in parameters)
        if fault:
            raise UsageError(f"the program holds what cannot be weights: {fault}")


def input_specs(exported: ExportedProgram) -> tuple[Tensor, ...]:
    """List a program's inputs.

    Raises
    ------
    UsageError
        One is no tensor, or has no fixed shape.
    """
    placeholders = {
        n.name: n.meta.get("val") for n in exported.graph.nodes if n.op == "placeholder"
    }
    specs = []
    for name in exported.graph_signature.user_inputs:
        value = placeholders.get(str(name))
        if not isinstance(value, torch.Tensor):
            raise UsageError(f"input {name!r} is not a tensor: only tensors can be deployed")
        dynamic = [str(extent) for extent in value.shape if not isinstance(extent, int)]
        if dynamic:
            raise UsageError(
                f"input {name!r} has dynamic extents ({', '.join(dynamic)}) in shape "
                f"{tuple(map(str, value.shape))}: export the program with fixed shapes"
            )
        if 0 in value.shape:
            raise UsageError(f"input {name!r} has no elements: its shape is {tuple(value.shape)}")
        specs.append(
            Tensor(str(name), tuple(value.shape), data_type(str(value.dtype).split(".")[-1]))
        )
    return tuple(specs)


def _reason(error: BaseException) -> str:
    return printable_line(str(error)) or type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence `torch.export`: its deprecations, and the stack traces it logs before it raises."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
