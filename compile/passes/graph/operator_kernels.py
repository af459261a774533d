"""How a chain of operators becomes one of this project's kernels: layers, packed weights, names."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from tvm import relax

from shuffledeploy.compiler.ir.attributes import ELEMENTWISE, JOINED, LANES, WORDS
from shuffledeploy.compiler.ir.graph import Array, constant_of, operator, shape_of
from shuffledeploy.compiler.ir.memory_layout import FLOAT, HALF, INT8, Held
from shuffledeploy.compiler.kernels import concatenation as joined
from shuffledeploy.compiler.kernels import elementwise, window
from shuffledeploy.compiler.kernels.convolution_shape import Convolution, contiguous_run
from shuffledeploy.compiler.kernels.int8_products import FOUR, PAIRS_OF_WORD
from shuffledeploy.compiler.kernels.int8_weights import pack_columns, pack_words
from shuffledeploy.compiler.kernels.packing import pack_bias, pack_weight
from shuffledeploy.compiler.kernels.window_words import EIGHT, channel_places
from shuffledeploy.compiler.passes.graph.choose_layouts import (
    TO_CHANNELS_LAST,
    permutation,
)
from shuffledeploy.compiler.passes.graph.int8_kernels import (
    int8_epilogue,
    int8_layer,
    reads_words,
    starting_numbers,
)
from shuffledeploy.compiler.passes.graph.output_parts import in_parts
from shuffledeploy.compiler.passes.graph.reordered_reads import Reordered, reordered
from shuffledeploy.compiler.passes.graph.sites import (
    Kernel,
    Site,
    convolution_kernel,
    lanes_for,
    pair,
    quadruple,
    reshaped,
)
from shuffledeploy.compiler.passes.graph.strassen_layers import is_strassen, strassen
from shuffledeploy.compiler.passes.graph.winograd_layers import is_winograd, winograd

# Products of half precision that are summed up in it: of more the sum would lose digits.
LONGEST_BLOCK = 8


def kernel_for(site: Site) -> Kernel:
    """Choose and write the kernel of a chain, which `lower_to_kernels` found to be covered."""
    make = {
        "relax.nn.conv2d": _convolution,
        "relax.matmul": _linear,
        "relax.concat": _joined,
        # No operator: a tensor to which the epilogue is applied.
        "": _elementwise,
    }.get(operator(site.chain.anchor), _window)
    return make(site)


def _read(data: Any, site: Site) -> Reordered:
    """Look through orders of channels and pixels."""
    return reordered(data, site.definition)


def _convolution(site: Site) -> Kernel:
    attrs = site.chain.anchor.attrs
    weight = constant_of(site.chain.anchor.args[1])
    assert weight is not None
    groups, outputs = int(attrs.groups), weight.shape[3]
    read = _read(site.chain.anchor.args[0], site)
    data, order = read.tensor, read.channels
    stored, image = shape_of(data), shape_of(site.chain.anchor.args[0])
    assert stored is not None
    assert image is not None
    if groups == image[3] and weight.shape[2] == 1 and outputs == groups and order is None:
        return _depthwise(site, weight, read)
    held = site.held.get(data)
    ends = int8_epilogue(site, scaled=False)
    transposed = site.definition(data)
    channels_first = permutation(transposed) == TO_CHANNELS_LAST
    if channels_first:
        data = transposed.args[0]
    full_order = np.arange(image[3]) if order is None else order
    depth = weight.shape[2]
    # A selection reads fewer channels than are stored: only a table can say which.
    selects = order is not None and len(order) != stored[3]
    run = 0 if selects else contiguous_run(full_order, groups)
    order_of_writes = site.chain.order
    conv = Convolution(
        height=image[1], width=image[2], channels=depth * groups,
        stored_channels=stored[3] // read.pixels.square**2,
        groups=groups, group_outputs=outputs // groups, kernel=pair(weight.shape),
        stride=pair(attrs.strides), padding=quadruple(attrs.padding),
        dilation=pair(attrs.dilation), run=run, scattered=order_of_writes is not None,
        channels_first=channels_first,
        lanes=lanes_for(outputs // groups, site.core), epilogue=ends.steps,
        dtype=site.core.element, written=ends.written, pixels=read.pixels,
    )  # fmt: skip
    if held is not None and site.core.multiplies_int8 and reads_words(conv):
        return _in_words(site, conv, site.current_value(data), weight, held)
    given = site.float_value(data)
    # What puts such layers together from parts writes no int8, nor adds one.
    in_int8 = conv.written or ends.arguments
    if is_winograd(conv) and not in_int8:
        return winograd(site, conv, weight, given)
    if is_strassen(conv, site.core) and not in_int8:
        return strassen(site, conv, weight, given)
    conv = in_parts(conv, site.core)
    tables = [] if run else [relax.const(full_order.astype(np.int32))]
    if order_of_writes is not None:
        tables.append(relax.const(np.argsort(order_of_writes).astype(np.int32)))
    packed = relax.const(pack_weight(weight, conv))
    return convolution_kernel(conv, [given, packed, *ends.arguments], tables)


def _in_words(site: Site, conv: Convolution, data: Any, weight: Array, held: Held) -> Kernel:
    """Let a convolution read int8 in words."""
    ends = int8_epilogue(site, scaled=True)
    layer = int8_layer(weight, starting_numbers(site, weight.shape[3]), held, ends)
    conv = dataclasses.replace(
        conv, dtype=INT8, lanes=site.core.lanes, epilogue=layer.steps, outside=held.zero,
        sums=layer.sums, in_pairs=site.core.multiplies_pairs,
    )  # fmt: skip
    words = relax.const(pack_words(pack_weight(layer.whole, conv), conv))
    order, tables = site.chain.order, []
    if order is not None:
        tables.append(relax.const(np.argsort(order).astype(np.int32)))
    kernel = convolution_kernel(conv, [data, words, *layer.arguments, *ends.arguments], tables)
    return dataclasses.replace(kernel, pack_bias=lambda _: pack_bias(layer.starts, conv))


def _depthwise(site: Site, weight: Array, read: Reordered) -> Kernel:
    attrs, stored = site.chain.anchor.attrs, shape_of(site.chain.anchor.args[0])
    assert stored is not None
    data = read.tensor
    held = site.held.get(data)
    ends = int8_epilogue(site, scaled=held is not None)
    form = window.Window(
        combine="multiply_add", height=stored[1], width=stored[2], channels=stored[3],
        kernel=pair(weight.shape), stride=pair(attrs.strides),
        padding=quadruple(attrs.padding), dilation=pair(attrs.dilation), divisor=1.0,
        epilogue=ends.steps, dtype=site.core.element if held is None else INT8,
        written=ends.written, outside=0 if held is None else held.zero, pixels=read.pixels,
        in_pairs=held is not None and site.core.multiplies_pairs,
    )  # fmt: skip
    taps = np.ascontiguousarray(weight[:, :, 0, :])
    name = f"depthwise{form.kernel[0]}x{form.kernel[1]}"
    if held is None:
        inputs = [site.current_value(data), relax.const(taps), *ends.arguments]
        return _window_kernel(site, form, name, inputs)
    layer = int8_layer(taps, starting_numbers(site, form.channels), held, ends)
    form = dataclasses.replace(form, epilogue=layer.steps, sums=layer.sums, vector=EIGHT)
    layer = layer.of_outputs(channel_places(form))
    packed = relax.const(layer.whole if form.in_pairs else pack_columns(layer.whole))
    inputs = [site.current_value(data), packed, *layer.arguments, *ends.arguments]
    kernel = _window_kernel(site, form, name, inputs)
    return dataclasses.replace(kernel, pack_bias=lambda _: layer.starts)


def _window_kernel(site: Site, form: window.Window, what: str, inputs: list[Any]) -> Kernel:
    if form.dtype == FLOAT and site.core.overlaps:
        form = dataclasses.replace(form, vector=site.core.lanes)
    stride = f"s{form.stride[0]}" if form.stride != (1, 1) else ""
    name = f"{what}{stride}_{form.channels}_{form.output_height}x{form.output_width}"
    facts = {"multiply_adds": form.multiply_adds, LANES: site.core.lanes}
    if form.multiplies_int8:
        facts[WORDS] = PAIRS_OF_WORD if form.in_pairs else 1
    return Kernel(
        "window", name, window.primitive_function(form), inputs, [], facts, form.output_shape
    )


def _window(site: Site) -> Kernel:
    value, stored = site.chain.anchor, shape_of(site.chain.anchor.args[0])
    assert stored is not None
    read = _read(value.args[0], site)
    if read.channels is not None:
        read = Reordered(value.args[0])
    is_max = operator(value) == "relax.nn.max_pool2d"
    held = None if is_max else site.held.get(read.tensor)
    ends = int8_epilogue(site, scaled=held is not None)
    types = (site.core.element if held is None else INT8, ends.written)
    scale = 1.0 if held is None else held.scale / ends.unit
    zero = 0 if held is None else held.zero
    offset = 0.0 if held is None else ends.start - zero * scale
    given = site.float_value(read.tensor) if is_max else site.current_value(read.tensor)
    data = [given, *ends.arguments]
    if operator(value) == "relax.mean":
        form = window.Window(
            "sum", stored[1], stored[2], stored[3], (stored[1], stored[2]), (1, 1), (0, 0, 0, 0),
            (1, 1), float(stored[1] * stored[2]), ends.steps, *types, scale, offset, zero,
            pixels=read.pixels,
        )  # fmt: skip
        return _window_kernel(site, form, "mean", data)
    attrs = value.attrs
    kernel = pair(attrs.pool_size)
    padding = quadruple(attrs.padding)
    fixed = is_max or attrs.count_include_pad or not any(padding)
    form = window.Window(
        "max" if is_max else "sum", stored[1], stored[2], stored[3], kernel, pair(attrs.strides),
        padding, pair(attrs.dilation), float(kernel[0] * kernel[1]) if fixed else 0.0,
        ends.steps, *types, scale, offset, zero, pixels=read.pixels,
    )  # fmt: skip
    return _window_kernel(site, form, "max_pool" if is_max else "avg_pool", data)


def _linear(site: Site) -> Kernel:
    weight = constant_of(site.chain.anchor.args[1])
    assert weight is not None
    depth, outputs = weight.shape
    read = _read(site.chain.anchor.args[0], site)
    data, order = read.tensor, read.channels
    in_words = order is None and site.core.multiplies_int8 and depth >= FOUR
    held = site.held.get(data) if in_words else None
    data = site.float_value(data) if held is None else site.current_value(data)
    rows, stored = shape_of(data) or (1, depth)
    ends = int8_epilogue(site, scaled=False)
    conv = Convolution(
        height=rows, width=1, channels=depth, stored_channels=stored, groups=1,
        group_outputs=outputs, kernel=(1, 1), stride=(1, 1), padding=(0, 0, 0, 0), dilation=(1, 1),
        run=depth if order is None else 0, scattered=False, channels_first=False,
        lanes=lanes_for(outputs, site.core),
        epilogue=ends.steps, dtype=site.core.element, block=_block_of(depth, site),
        written=ends.written,
    )  # fmt: skip
    data = reshaped(site.builder, data, (1, rows, 1, stored))
    weight = weight.reshape(1, 1, depth, outputs)
    if held is not None:
        return _in_words(site, conv, data, weight, held)
    packed = pack_weight(weight, conv)
    tables = [] if order is None else [relax.const(order.astype(np.int32))]
    return convolution_kernel(conv, [data, relax.const(packed), *ends.arguments], tables)


def _block_of(depth: int, site: Site) -> int:
    """Choose how many products a linear layer in half sums up before it goes on in float32."""
    if site.core.element != HALF:
        return 0
    return max(divisor for divisor in range(1, LONGEST_BLOCK + 1) if depth % divisor == 0)


def _joined(site: Site) -> Kernel:
    inputs, tables, parts = [], [], []
    as_int8 = _joins_int8(site)
    for field in site.chain.anchor.args[0].fields:
        read = _read(field, site)
        data, order = read.tensor, read.channels
        stored = shape_of(data)
        assert stored is not None
        inputs.append(site.current_value(data) if as_int8 else site.float_value(data))
        of_pixel = stored[3] // read.pixels.square**2
        channels = of_pixel if order is None else len(order)
        parts.append(joined.Part(of_pixel, channels, order is not None, read.pixels))
        tables += read.tables
    shape = shape_of(site.chain.variables[0])
    assert shape is not None
    ends = int8_epilogue(site, scaled=False)
    form = joined.Joined(
        shape[1], shape[2], tuple(parts), ends.steps, site.core.element, ends.written
    )
    if as_int8:
        # No int8 is below that of zero where it is the least.
        kept = () if site.chain.held is not None and site.chain.held.zero else site.chain.steps
        form = dataclasses.replace(form, epilogue=kept, dtype=INT8)
    else:
        inputs += ends.arguments
    name = f"concat_{shape[3]}_{shape[1]}x{shape[2]}"
    return Kernel(
        JOINED,
        name,
        joined.primitive_function(form),
        inputs,
        tables,
        {"multiply_adds": 0},
        form.output_shape,
    )


def _joins_int8(site: Site) -> bool:
    """Whether all parts of a concatenation stand in memory as it is to be written, but for ReLU."""
    fields = (_read(field, site).tensor for field in site.chain.anchor.args[0].fields)
    held = {site.held.get(field) for field in fields}
    plain = all(step.kind == "relu" for step in site.chain.steps)
    return site.chain.held is not None and held == {site.chain.held} and plain


def _elementwise(site: Site) -> Kernel:
    shape, dtype = shape_of(site.chain.anchor), str(site.chain.anchor.ty.dtype)
    assert shape is not None
    _, height, width, channels = shape
    read = _read(site.chain.anchor, site)
    ends = int8_epilogue(site, scaled=False)
    form = elementwise.Elementwise(
        height, width, channels, ends.steps, dtype, read.stored, read.pixels
    )
    return Kernel(
        ELEMENTWISE, f"elementwise_{channels}_{height}x{width}",
        elementwise.primitive_function(form), [site.float_value(read.tensor), *ends.arguments],
        read.tables, {"multiply_adds": 0, LANES: site.core.of(dtype).lanes}, form.output_shape,
    )  # fmt: skip
