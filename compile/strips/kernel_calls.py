"""Which kernel calls can go by strips, and what there is to know of each."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import tvm
from tvm import relax, tirx

from shuffledeploy.compiler.ir.attributes import kernel_of
from shuffledeploy.compiler.ir.graph import bindings_of, called_kernel, operator, shape_of
from shuffledeploy.compiler.ir.tir import tensor_bytes
from shuffledeploy.compiler.kernels.images import images_of, tensors_of_images
from shuffledeploy.compiler.passes.tir.over_residual import residual_of
from shuffledeploy.compiler.strips.ranged import Ranged, ranged


@dataclasses.dataclass(frozen=True)
class KernelCall:
    """A kernel call that can go by strips.

    Attributes
    ----------
    variable : relax.Var
        What it is bound to.
    name, kernel : str
        Of the function, and of the kernel whose work it does.
    arguments : tuple
        Tensors that it is given.
    shape : tuple of int
        Of its output, NHWC.
    ranged : Ranged
        The scheduled kernel, on a range of its pixels.
    unscheduled : tirx.PrimFunc
        What tells which rows it reads.
    residual : int, optional
        Which argument it could be written over, if nobody else needs that.
    in_place : bool
        Whether it writes over that argument already, and has no other output.
    images : int
        How many it computes; it goes by strips of each.
    tensors : tuple of int
        Which arguments have another part for each image.
    """

    variable: relax.Var
    name: str
    kernel: str
    arguments: tuple[Any, ...]
    shape: tuple[int, ...]
    ranged: Ranged
    unscheduled: tirx.PrimFunc
    residual: int | None
    in_place: bool
    images: int
    tensors: tuple[int, ...]

    @functools.cached_property
    def size(self) -> int:
        """Bytes of the output, of all images."""
        return bytes_of(self.variable)

    @functools.cached_property
    def weights(self) -> int:
        """Bytes of the constants that it is given."""
        constants = (a for a in self.arguments if not isinstance(a, relax.Var))
        return sum(bytes_of(constant) for constant in constants)

    @functools.cached_property
    def read(self) -> dict[relax.Var, int]:
        """Bytes of each tensor that it is given, of all images."""
        return {a: bytes_of(a) for a in self.arguments if isinstance(a, relax.Var)}


def bytes_of(tensor: Any) -> int:
    """Bytes of a tensor."""
    return tensor_bytes(shape_of(tensor) or (), tensor.ty.dtype)


def segments_of(
    module: tvm.IRModule, unscheduled: Mapping[str, tirx.PrimFunc], small_indices: bool
) -> list[list[KernelCall]]:
    """Cut the entry function where something stands that cannot go by strips.

    Parameters
    ----------
    module : tvm.IRModule
        Calls of scheduled kernels.
    unscheduled : mapping
        The same kernels before they were scheduled, by name.
    small_indices : bool
        As of :func:`ranged`.
    """
    functions = {variable.name_hint: f for variable, f in module.functions.items()}
    kernels: dict[str, tuple[Ranged | None, int | None]] = {}
    segments: list[list[KernelCall]] = [[]]
    for variable, value in bindings_of(module):
        shape = shape_of(variable)
        name = called_kernel(value)
        if name is not None and name not in kernels:
            whole = functions[name]
            kernels[name] = ranged(whole, small_indices=small_indices), residual_of(whole)
        kernel, residual = kernels[name] if name is not None else (None, None)
        if name is None or kernel is None or shape is None or kernel.units == 1:
            segments.append([])
            continue
        images = images_of(functions[name])
        if segments[-1] and segments[-1][-1].images != images:
            segments.append([])
        arguments = tuple(value.args[1].fields)
        in_place = operator(value) == "relax.call_tir_inplace"
        if in_place:
            # What it writes over comes last, as its output did.
            residual = len(arguments) - 1
        of = kernel_of(functions[name], name)
        call = KernelCall(
            variable, name, of, arguments, shape, kernel, unscheduled[of], residual, in_place,
            images, tensors_of_images(functions[name]),
        )  # fmt: skip
        segments[-1].append(call)
    return segments
