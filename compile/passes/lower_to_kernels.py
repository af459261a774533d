"""Convolutions, pools, linear layers and concatenations become kernels, neighbours inside.

Before::

    x -> take(order) -> conv2d(W) -> add(bias) -> add(residual) -> relu

After::

    (x, packed W, bias, residual) -> one kernel that reads x in that order

Transposes of the network's input and `take`s of channels before a convolution become indices of its
reads. Elementwise operations that follow become its epilogue. What no kernel here covers (another
batch size, another type, a weight that is not a constant) is left to TVM's own legalisation, layer
by layer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import tvm
from tvm import relax

from compile.kernels import convolution, joined, window
from compile.kernels.blocks import Step, starting_bias
from compile.kernels.schedules import KIND
from compile.kernels.tiling import Core
from compile.passes.choose_layouts import LAST_AXIS, TO_CHANNELS_LAST
from compile.passes.epilogues import Chain, find_chains
from compile.passes.graph import (
    Array,
    bindings_of,
    constant_of,
    operator,
    rebuild,
    shape_of,
    substitute,
)

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
    multiply_adds : int
        Of one call.
    lanes : int
        Vector length that its weights are padded to.
    output_shape : tuple of int
        What the kernel writes.
    pack_bias : Callable, optional
        Lays out a bias that the sums start from.
    run : int
        Input channels that a convolution reads in one piece.
    """

    kind: str
    name: str
    function: Any
    inputs: list[Any]
    tables: list[Any]
    multiply_adds: int
    lanes: int
    output_shape: tuple[int, ...]
    pack_bias: Callable[[Array], Array] | None = None
    run: int = 0


def lower_to_kernels(module: tvm.IRModule, core: Core) -> tvm.IRModule:
    """Replace what this project's kernels cover by calls of them; see the module's docstring."""
    definitions = dict(bindings_of(module))
    chains = find_chains(module, lambda value: _is_anchor(value, definitions))
    inside = {v for chain in chains.values() for v in chain.variables[:-1]}
    replaced: dict[relax.Var, Any] = {}

    def current(variable: relax.Var) -> Any:
        return replaced.get(variable, variable)

    def emit(builder: relax.BlockBuilder, variable: relax.Var, value: Any) -> None:
        if variable in inside:
            return
        chain = chains.get(variable)
        if chain is None:
            replaced[variable] = builder.emit(substitute(value, current))
        else:
            replaced[variable] = _call(builder, chain, definitions, current, core)

    return rebuild(module, emit, lambda _, result: substitute(result, current))


def _is_anchor(value: Any, definitions: dict[relax.Var, Any]) -> bool:
    shape = shape_of(value) if operator(value) else None
    if shape is None or shape[0] != 1 or str(value.ty.dtype) != "float32":
        return False
    covers = {
        "relax.nn.conv2d": _covers_convolution,
        "relax.nn.max_pool2d": _covers_pool,
        "relax.nn.avg_pool2d": _covers_pool,
        "relax.mean": _covers_mean,
        "relax.matmul": _covers_product,
        "relax.concat": _covers_concatenation,
    }.get(operator(value))
    return covers is not None and covers(value)


def _covers_convolution(value: Any) -> bool:
    weight = constant_of(value.args[1])
    channels_last = value.attrs.data_layout == "NHWC"
    return channels_last and weight is not None and weight.dtype == np.float32


def _covers_pool(value: Any) -> bool:
    return value.attrs.layout == "NHWC" and not value.attrs.ceil_mode


def _covers_mean(value: Any) -> bool:
    axes, before = value.attrs.axis, shape_of(value.args[0]) or ()
    return len(before) == 4 and axes is not None and sorted(int(a) for a in axes) == [1, 2]


def _covers_product(value: Any) -> bool:
    weight, left = constant_of(value.args[1]), shape_of(value.args[0])
    return weight is not None and weight.ndim == 2 and left is not None and len(left) == 2


def _covers_concatenation(value: Any) -> bool:
    return len(shape_of(value) or ()) == 4 and int(value.attrs.axis or 0) == LAST_AXIS


def _call(
    builder: relax.BlockBuilder,
    chain: Chain,
    definitions: dict[relax.Var, Any],
    current: Any,
    core: Core,
) -> Any:
    make = {
        "relax.nn.conv2d": _convolution,
        "relax.matmul": _linear,
        "relax.concat": _joined,
    }.get(operator(chain.anchor), _window)
    kernel = make(builder, chain, definitions, current, core)
    operands = []
    for number, operand in enumerate(chain.operands):
        array = constant_of(operand)
        if array is not None:
            channels = kernel.output_shape[3]
            bias = np.broadcast_to(array.reshape(-1), (channels,)).copy()
            if number == 0 and starting_bias(chain.steps) and kernel.pack_bias is not None:
                bias = kernel.pack_bias(bias)
            operands.append(relax.const(bias))
        else:
            tensor = substitute(operand, current)
            operands.append(_reshaped(builder, tensor, kernel.output_shape))
    function = kernel.function.with_attrs({
        KIND: kernel.kind, "lanes": kernel.lanes, "run": kernel.run,
        "multiply_adds": kernel.multiply_adds,
        "op_pattern": OPAQUE_PATTERN,
    })  # fmt: skip
    reference = builder.add_func(function, kernel.name)
    arguments = [*kernel.inputs, *operands, *kernel.tables]
    result_type = relax.TensorType(kernel.output_shape, "float32")
    called = builder.emit(relax.call_tir(reference, relax.Tuple(arguments), result_type))
    wanted = shape_of(chain.variables[-1])
    assert wanted is not None
    return _reshaped(builder, called, wanted)


def _reshaped(builder: relax.BlockBuilder, tensor: Any, shape: tuple[int, ...]) -> Any:
    return tensor if shape_of(tensor) == shape else builder.emit(relax.op.reshape(tensor, shape))


def _reordered_input(data: Any, definitions: dict[relax.Var, Any]) -> tuple[Any, Array | None]:
    """Look through a `take` of channels: the tensor in memory, and the order it is read in."""
    value: Any = definitions.get(data) if isinstance(data, relax.Var) else None
    if operator(value) == "relax.take" and value.attrs.axis == LAST_AXIS:
        return value.args[0], constant_of(value.args[1])
    return data, None


def _pair(values: Any) -> tuple[int, int]:
    return int(values[0]), int(values[1])


def _quadruple(values: Any) -> tuple[int, int, int, int]:
    return int(values[0]), int(values[1]), int(values[2]), int(values[3])


def lanes_for(outputs: int, core: Core) -> int:
    """Vector length for a group's outputs: the longest that leaves no remainder in a long row."""
    lanes = core.lanes
    while lanes > 4 and outputs % lanes and outputs > 4 * lanes:
        lanes //= 2
    return lanes


def _convolution(
    builder: relax.BlockBuilder,
    chain: Chain,
    definitions: dict[relax.Var, Any],
    current: Any,
    core: Core,
) -> Kernel:
    attrs = chain.anchor.attrs
    weight = constant_of(chain.anchor.args[1])
    assert weight is not None
    groups, outputs = int(attrs.groups), weight.shape[3]
    data, order = _reordered_input(chain.anchor.args[0], definitions)
    stored = shape_of(data)
    assert stored is not None
    if groups == stored[3] and weight.shape[2] == 1 and outputs == groups and order is None:
        return _depthwise(chain, weight, current)
    transposed: Any = definitions.get(data) if isinstance(data, relax.Var) else None
    channels_first = (
        operator(transposed) == "relax.permute_dims"
        and [int(axis) for axis in transposed.attrs.axes or ()] == TO_CHANNELS_LAST
    )
    if channels_first:
        data = transposed.args[0]
    full_order = np.arange(stored[3]) if order is None else order
    depth = weight.shape[2]
    # A selection reads fewer channels than are stored: only a table can say which.
    selects = len(full_order) != stored[3]
    run = 0 if selects else convolution.contiguous_run(full_order, groups)
    conv = convolution.Convolution(
        height=stored[1], width=stored[2], channels=depth * groups, stored_channels=stored[3],
        groups=groups, group_outputs=outputs // groups, kernel=_pair(weight.shape),
        stride=_pair(attrs.strides), padding=_quadruple(attrs.padding),
        dilation=_pair(attrs.dilation), run=run, channels_first=channels_first,
        lanes=lanes_for(outputs // groups, core), epilogue=chain.steps,
    )  # fmt: skip
    tables = [] if run else [relax.const(full_order.astype(np.int32))]
    packed = relax.const(convolution.pack_weight(weight, conv))
    return _convolution_kernel(conv, [substitute(data, current), packed], tables)


def _convolution_kernel(
    conv: convolution.Convolution, inputs: list[Any], tables: list[Any]
) -> Kernel:
    what = (
        "linear"
        if (conv.height, conv.width) == (1, 1)
        else f"conv{conv.kernel[0]}x{conv.kernel[1]}"
    )
    stride = f"s{conv.stride[0]}" if conv.stride != (1, 1) else ""
    groups = f"_g{conv.groups}" if conv.groups > 1 else ""
    name = (
        f"{what}{stride}{groups}_{conv.channels}x{conv.groups * conv.group_outputs}"
        f"_{conv.output_height}x{conv.output_width}"
    )
    return Kernel(
        "convolution", name, convolution.primitive_function(conv), inputs, tables,
        conv.multiply_adds, conv.lanes, convolution.output_type(conv),
        partial(convolution.pack_bias, conv=conv), 0 if conv.channels_first else conv.run,
    )  # fmt: skip


def _depthwise(chain: Chain, weight: Array, current: Any) -> Kernel:
    attrs, stored = chain.anchor.attrs, shape_of(chain.anchor.args[0])
    assert stored is not None
    form = window.Window(
        combine="multiply_add", height=stored[1], width=stored[2], channels=stored[3],
        kernel=_pair(weight.shape), stride=_pair(attrs.strides),
        padding=_quadruple(attrs.padding), dilation=_pair(attrs.dilation), divisor=1.0,
        epilogue=chain.steps,
    )  # fmt: skip
    packed = relax.const(np.ascontiguousarray(weight[:, :, 0, :]))
    name = f"depthwise{form.kernel[0]}x{form.kernel[1]}"
    return _window_kernel(form, name, [substitute(chain.anchor.args[0], current), packed])


def _window_kernel(form: window.Window, what: str, inputs: list[Any]) -> Kernel:
    stride = f"s{form.stride[0]}" if form.stride != (1, 1) else ""
    name = f"{what}{stride}_{form.channels}_{form.output_height}x{form.output_width}"
    return Kernel(
        "window", name, window.primitive_function(form), inputs, [], form.multiply_adds, 1,
        form.output_shape,
    )  # fmt: skip


def _window(
    builder: relax.BlockBuilder,
    chain: Chain,
    definitions: dict[relax.Var, Any],
    current: Any,
    core: Core,
) -> Kernel:
    value, stored = chain.anchor, shape_of(chain.anchor.args[0])
    assert stored is not None
    data = [substitute(value.args[0], current)]
    if operator(value) == "relax.mean":
        form = window.Window(
            "sum", stored[1], stored[2], stored[3], (stored[1], stored[2]), (1, 1), (0, 0, 0, 0),
            (1, 1), float(stored[1] * stored[2]), chain.steps,
        )  # fmt: skip
        return _window_kernel(form, "mean", data)
    attrs = value.attrs
    is_max = operator(value) == "relax.nn.max_pool2d"
    kernel = _pair(attrs.pool_size)
    padding = _quadruple(attrs.padding)
    fixed = is_max or attrs.count_include_pad or not any(padding)
    form = window.Window(
        "max" if is_max else "sum", stored[1], stored[2], stored[3], kernel, _pair(attrs.strides),
        padding, _pair(attrs.dilation), float(kernel[0] * kernel[1]) if fixed else 0.0, chain.steps,
    )  # fmt: skip
    return _window_kernel(form, "max_pool" if is_max else "avg_pool", data)


def _linear(
    builder: relax.BlockBuilder,
    chain: Chain,
    definitions: dict[relax.Var, Any],
    current: Any,
    core: Core,
) -> Kernel:
    weight = constant_of(chain.anchor.args[1])
    assert weight is not None
    depth, outputs = weight.shape
    conv = convolution.Convolution(
        height=1, width=1, channels=depth, stored_channels=depth, groups=1, group_outputs=outputs,
        kernel=(1, 1), stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1), run=depth,
        channels_first=False, lanes=lanes_for(outputs, core), epilogue=chain.steps,
    )  # fmt: skip
    data = _reshaped(builder, substitute(chain.anchor.args[0], current), (1, 1, 1, depth))
    packed = convolution.pack_weight(weight.reshape(1, 1, depth, outputs), conv)
    return _convolution_kernel(conv, [data, relax.const(packed)], [])


def _joined(
    builder: relax.BlockBuilder,
    chain: Chain,
    definitions: dict[relax.Var, Any],
    current: Any,
    core: Core,
) -> Kernel:
    inputs, tables, parts = [], [], []
    for field in chain.anchor.args[0].fields:
        data, order = _reordered_input(field, definitions)
        stored = shape_of(data)
        assert stored is not None
        inputs.append(substitute(data, current))
        read = stored[3] if order is None else len(order)
        parts.append(joined.Part(stored[3], read, order is not None))
        if order is not None:
            tables.append(relax.const(order.astype(np.int32)))
    shape = shape_of(chain.variables[0])
    assert shape is not None
    form = joined.Joined(shape[1], shape[2], tuple(parts), chain.steps)
    name = f"concat_{shape[3]}_{shape[1]}x{shape[2]}"
    return Kernel(
        "joined", name, joined.primitive_function(form), inputs, tables, 0, 1, form.output_shape
    )


__all__ = ["Kernel", "Step", "lower_to_kernels"]
