"""Convolutions, pools, linear layers and concatenations become kernels, neighbours inside.

Before::

    x -> take(order) -> conv2d(W) -> add(bias) -> add(residual) -> relu

After::

    (x, packed W, bias, residual) -> one kernel that reads x in that order

Transposes of the network's input and `take`s of channels before a convolution become indices of its
reads. Elementwise operations that follow become its epilogue; what they read beside it may be a
`take`, too. A batch goes image by image
(:mod:`compiler.kernels.images`), but for products, whose rows are the pixels of one image. What no
kernel here covers (another type, a weight that is not a constant) is left to TVM's own
legalisation, layer by layer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm
from tvm import relax

from shuffledeploy.compiler.ir.graph import (
    bindings_of,
    constant_of,
    operator,
    rebuild,
    shape_of,
    substitute,
)
from shuffledeploy.compiler.ir.memory_layout import ELEMENT_BYTES
from shuffledeploy.compiler.kernels.blocks import starting_bias
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.passes.graph.choose_layouts import LAST_AXIS
from shuffledeploy.compiler.passes.graph.epilogues import find_chains
from shuffledeploy.compiler.passes.graph.int8_kernels import added_tensors
from shuffledeploy.compiler.passes.graph.operator_kernels import kernel_for
from shuffledeploy.compiler.passes.graph.sites import (
    Site,
    emit_call,
    in_float,
    over_shape,
    reshaped,
)


def lower_to_kernels(module: tvm.IRModule, core: Core) -> tvm.IRModule:
    """Replace what this project's kernels cover by calls of them; see the module's docstring."""
    chains = find_chains(module, is_covered)
    # What a kernel writes is read as it lies, a `take` at a chain's end too.
    definitions = {v: value for v, value in bindings_of(module) if v not in chains}
    inside = {v for chain in chains.values() for v in chain.computed[:-1]}
    replaced: dict[relax.Var, Any] = {}
    held = {variable: chain.held for variable, chain in chains.items() if chain.held is not None}

    def current(variable: relax.Var) -> Any:
        return replaced.get(variable, variable)

    def emit(builder: relax.BlockBuilder, variable: relax.Var, value: Any) -> None:
        if variable in inside:
            return
        chain = chains.get(variable)
        if chain is None:
            replaced[variable] = builder.emit(_in_float(value, builder))
        else:
            own = core.of(str(chain.anchor.ty.dtype))
            replaced[variable] = _call(Site(chain, builder, definitions, current, own, held))

    def _in_float(expr: Any, builder: relax.BlockBuilder) -> Any:
        return substitute(expr, lambda v: in_float(builder, current(v), held.get(v)))

    return rebuild(module, emit, lambda builder, result: _in_float(result, builder))


def is_covered(value: Any) -> bool:
    """Whether a kernel of this project can stand for an operator, as it is written."""
    shape = shape_of(value) if operator(value) else None
    if not shape or not shape[0] or str(value.ty.dtype) not in ELEMENT_BYTES:
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
    return channels_last and weight is not None and str(weight.dtype) == str(value.ty.dtype)


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


def _call(site: Site) -> Any:
    kernel = kernel_for(site)
    added = added_tensors(site.chain.steps)
    operands = []
    for number, operand in enumerate(site.chain.operands):
        array = constant_of(operand)
        if array is not None:
            channels = kernel.output_shape[3]
            bias = np.broadcast_to(array.reshape(-1), (channels,)).copy()
            if number == 0 and starting_bias(site.chain.steps) and kernel.pack_bias is not None:
                bias = kernel.pack_bias(bias)
            operands.append(relax.const(bias))
            continue
        # Of the steps, sums alone read what is held in int8.
        tensor = site.current_value(operand) if number in added else site.float_value(operand)
        if shape_of(operand) == shape_of(site.chain.variables[-1]):
            tensor = reshaped(site.builder, tensor, over_shape(kernel.output_shape, site))
        operands.append(tensor)
    called = emit_call(site, kernel, operands)
    wanted = shape_of(site.chain.variables[-1])
    assert wanted is not None
    return reshaped(site.builder, called, wanted)
