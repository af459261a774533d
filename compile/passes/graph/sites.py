"""Where a kernel is called, and what is called there: what all makers of kernels share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from tvm import relax, tirx

from shuffledeploy.compiler.ir.attributes import CONVOLUTION, KIND
from shuffledeploy.compiler.ir.graph import (
    Array,
    Current,
    constant_of,
    operator,
    shape_of,
    substitute,
)
from shuffledeploy.compiler.ir.inspection import element_of
from shuffledeploy.compiler.ir.memory_layout import FLOAT, Held
from shuffledeploy.compiler.ir.tvm_edges import FUSION
from shuffledeploy.compiler.kernels.convolution import primitive_function
from shuffledeploy.compiler.kernels.convolution_shape import Convolution, attributes, output_type
from shuffledeploy.compiler.kernels.images import over_images
from shuffledeploy.compiler.kernels.packing import pack_bias
from shuffledeploy.compiler.kernels.tiling import FEW_VECTORS, Core
from shuffledeploy.compiler.passes.graph.epilogues import Chain

# So that FuseOps leaves a kernel that is already fused alone
# (tvm/include/tvm/relax/op_attr_types.h).
OPAQUE_PATTERN = 8


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A kernel about to be called.

    Attributes
    ----------
    kind, name : str
        Kind of the kernel and what it does, for people.
    function : tirx.PrimFunc
        Unscheduled.
    inputs, tables : list
        Arguments before and after the epilogue's operands.
    attributes : dict
        What its forms and reports need to know beside its code; `multiply_adds` of one call always.
    output_shape : tuple of int
        What the kernel writes for one image.
    pack_bias : Callable, optional
        Lays out a bias that the sums start from.
    """

    kind: str
    name: str
    function: Any
    inputs: list[Any]
    tables: list[Any]
    attributes: dict[str, int]
    output_shape: tuple[int, int, int, int]
    pack_bias: Callable[[Array], Array] | None = None


@dataclasses.dataclass(frozen=True)
class Site:
    """Where a kernel is about to be called.

    Attributes
    ----------
    chain : Chain
        The operators that it stands for.
    builder : relax.BlockBuilder
        Where its call is emitted.
    definitions : dict
        What each variable of the old function is bound to.
    current : Callable
        What stands for a variable of the old function now.
    core : Core
        What the kernel's form needs to know of the target.
    held : mapping
        Of each variable that stands in memory as int8: how.
    """

    chain: Chain
    builder: relax.BlockBuilder
    definitions: dict[relax.Var, Any]
    current: Current
    core: Core
    held: Mapping[relax.Var, Held]

    @property
    def images(self) -> int:
        """Images that the kernel computes alike; the rows of a product are its pixels."""
        shape = shape_of(self.chain.variables[0])
        return 1 if operator(self.chain.anchor) == "relax.matmul" or not shape else shape[0]

    def definition(self, expr: Any) -> Any:
        """Return what a variable is bound to, ``None`` for other expressions."""
        return self.definitions.get(expr) if isinstance(expr, relax.Var) else None

    def current_value(self, expr: Any) -> Any:
        """Write an expression of the old function on what stands for its variables now."""
        return substitute(expr, self.current)

    def float_value(self, expr: Any) -> Any:
        """Write the same in numbers: what stands in memory as int8 is computed back."""
        held = self.held.get(expr) if isinstance(expr, relax.Var) else None
        return in_float(self.builder, self.current_value(expr), held)


def in_float(builder: relax.BlockBuilder, tensor: Any, held: Held | None) -> Any:
    """Give the numbers that a tensor of int8 stands for; others as they are."""
    if held is None:
        return tensor
    numbers = builder.emit(relax.op.astype(tensor, FLOAT))
    steps = builder.emit(relax.op.subtract(numbers, relax.const(float(held.zero), FLOAT)))
    return builder.emit(relax.op.multiply(steps, relax.const(held.scale, FLOAT)))


def emit_call(site: Site, kernel: Kernel, operands: list[Any]) -> Any:
    """Emit the call of a kernel for all images; `operands` are those of its epilogue."""
    attributes = {**kernel.attributes, KIND: kernel.kind, FUSION: OPAQUE_PATTERN}
    arguments = [*kernel.inputs, *operands, *kernel.tables]
    tensors = [place for place, given in enumerate(arguments) if constant_of(given) is None]
    function = kernel.function.with_attrs(attributes)
    function = over_images(function, site.images, [*tensors, len(arguments)])
    reference = site.builder.add_func(function, kernel.name)
    element = element_of(kernel.function)
    result = relax.TensorType(over_shape(kernel.output_shape, site), element)
    return site.builder.emit(relax.call_tir(reference, relax.Tuple(arguments), result))


def emit_alone(
    builder: relax.BlockBuilder,
    function: tirx.PrimFunc,
    name: str,
    arguments: relax.Tuple,
    shape: tuple[int, ...],
    attributes: Mapping[str, Any],
) -> relax.Var:
    """Emit the call of a kernel that takes no epilogue.

    Parameters
    ----------
    function, name : tirx.PrimFunc, str
        The kernel.
    arguments : relax.Tuple
        What it reads.
    shape : tuple of int
        Of what it writes.
    attributes : mapping
        Of the kernel, its kind among them.
    """
    kernel = builder.add_func(function.with_attrs({**attributes, FUSION: OPAQUE_PATTERN}), name)
    result = relax.TensorType(shape, element_of(function))
    return builder.emit(relax.call_tir(kernel, arguments, result))


def over_shape(shape: tuple[int, int, int, int], site: Site) -> tuple[int, int, int, int]:
    """Give the shape of a tensor of all images, by that of one."""
    planes, height, width, channels = shape
    return (site.images * planes, height, width, channels)


def reshaped(builder: relax.BlockBuilder, tensor: Any, shape: tuple[int, ...]) -> Any:
    """View a tensor in another shape, where it has another."""
    return tensor if shape_of(tensor) == shape else builder.emit(relax.op.reshape(tensor, shape))


def pair(values: Any) -> tuple[int, int]:
    """Read two extents, height and width, of an operator's attribute."""
    return int(values[0]), int(values[1])


def quadruple(values: Any) -> tuple[int, int, int, int]:
    """Read a padding: top, left, bottom, right."""
    return int(values[0]), int(values[1]), int(values[2]), int(values[3])


def lanes_for(outputs: int, core: Core) -> int:
    """Vector length for a group's outputs: the longest that leaves no remainder in a long row.

    Without masks half a vector takes as long as a whole one: a row is long that fits no tile.
    """
    lanes = core.lanes
    if core.multiplies_by_lane:
        return lanes
    most = FEW_VECTORS if core.masks else (core.registers - 2) // 2
    while lanes > 4 and outputs % lanes and outputs > most * lanes:
        lanes //= 2
    return lanes


def convolution_kernel(conv: Convolution, inputs: list[Any], tables: list[Any]) -> Kernel:
    """Describe the call of a convolution kernel.

    Parameters
    ----------
    conv : Convolution
        What it computes.
    inputs, tables : list
        Its arguments before and after the epilogue's operands.
    """
    what = (
        "linear"
        if (conv.height, conv.width) == (1, 1)
        else f"conv{conv.kernel[0]}x{conv.kernel[1]}"
    )
    stride = f"s{conv.stride[0]}" if conv.stride != (1, 1) else ""
    groups = f"_g{conv.groups}" if conv.groups > 1 and not conv.reads_all else ""
    name = (
        f"{what}{stride}{groups}_{conv.channels}x{conv.groups * conv.group_outputs}"
        f"_{conv.output_height}x{conv.output_width}"
    )
    return Kernel(
        CONVOLUTION, name, primitive_function(conv), inputs, tables,
        attributes(conv), output_type(conv),
        partial(pack_bias, conv=conv),
    )  # fmt: skip
