"""Pixels that no reader finds where they lie are moved by a kernel of their own.

Before::

    x[NHWC] -> take(rows, axis=1) -> take(columns, axis=2) -> permute to NCHW -> answer

After::

    x[NHWC] -> pixels_64_56x56 -> permute to NCHW -> answer

Kernels of convolutions, windows, concatenations and elementwise operations read such a tensor in
its order themselves (`lower_to_kernels`); what is left are answers, and what TVM's rules compute
from.
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax

from shuffledeploy.compiler.ir.attributes import ELEMENTWISE, KIND, LANES
from shuffledeploy.compiler.ir.graph import Current, bindings_of, rewrite, shape_of
from shuffledeploy.compiler.ir.memory_layout import ELEMENT_BYTES
from shuffledeploy.compiler.kernels.elementwise import Elementwise, primitive_function
from shuffledeploy.compiler.kernels.images import over_images
from shuffledeploy.compiler.kernels.pixel_order import AS_THEY_LIE
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.passes.graph.reordered_reads import Reordered, reordered
from shuffledeploy.compiler.passes.graph.sites import emit_alone


def move_pixels(module: tvm.IRModule, core: Core) -> tvm.IRModule:
    """Call a kernel for each tensor in another order of pixels; see the module's docstring."""
    definitions = dict(bindings_of(module))

    def replace(builder: relax.BlockBuilder, variable: relax.Var, _: Any, current: Current) -> Any:
        read = reordered(variable, definitions.get)
        if read.pixels == AS_THEY_LIE or str(variable.ty.dtype) not in ELEMENT_BYTES:
            return None
        return _moved(builder, variable, read, current, core)

    return rewrite(module, replace)


def _moved(
    builder: relax.BlockBuilder,
    variable: relax.Var,
    read: Reordered,
    current: Current,
    core: Core,
) -> relax.Var:
    shape, dtype = shape_of(variable), str(variable.ty.dtype)
    assert shape is not None
    images, height, width, channels = shape
    moved = Elementwise(height, width, channels, (), dtype, read.stored, read.pixels)
    arguments = [current(read.tensor), *read.tables]
    function = over_images(primitive_function(moved), images, [0, len(arguments)])
    attributes = {KIND: ELEMENTWISE, "multiply_adds": 0, LANES: core.of(dtype).lanes}
    name = f"pixels_{channels}_{height}x{width}"
    return emit_alone(builder, function, name, relax.Tuple(arguments), shape, attributes)
