"""How kernels are lowered: TVM's own pipeline, and two things that it leaves undone."""

from __future__ import annotations

from typing import Any

import tvm
from tvm import tirx
from tvm.s_tir.pipeline import default_s_tir_pipeline
from tvm.tirx.compilation_pipeline import register_tir_pipeline
from tvm_ffi import structural_map

from compile.kernels.blocks import picked, tiles_in
from compile.kernels.fetching import FETCHES
from compile.kernels.finishing import LANES
from compile.kernels.masked_vectors import has_masks, mask_odd_vectors
from compile.kernels.shared_vectors import SHARED, share_vectors
from compile.strips.ranged import INTERNAL

# Name under which TVM finds the pipeline.
PIPELINE = "shuffledeploy"


def pipeline() -> tuple[Any, Any, Any]:
    """Give the passes before, and for host and device, as TVM asks for them."""
    lower, finish_host, finish_device = default_s_tir_pipeline()

    @tvm.transform.module_pass(opt_level=0)  # type: ignore[untyped-decorator]
    def run(module: tvm.IRModule, _: Any) -> tvm.IRModule:
        functions = {
            variable: _improve(function) if isinstance(function, tirx.PrimFunc) else function
            for variable, function in lower(module).functions.items()
        }
        return tvm.IRModule(functions, attrs=module.attrs)

    return run, finish_host, finish_device


register_tir_pipeline(PIPELINE, pipeline)


def _improve(function: tirx.PrimFunc) -> tirx.PrimFunc:
    masks = has_masks(function)
    if masks and SHARED in function.attrs:
        function = share_vectors(function)
    if LANES in function.attrs:
        function = load_whole_vectors(function, int(function.attrs[LANES]))
    if masks:
        function = mask_odd_vectors(function)
    on_stack = INTERNAL in function.attrs or FETCHES in function.attrs
    return keep_on_stack(function) if on_stack else function


def load_whole_vectors(function: tirx.PrimFunc, lanes: int) -> tirx.PrimFunc:
    """Take the first lanes of a tile's vector from the whole of it.

    Before::

        out[16:24] = total[16:24]                       # sums stand in vectors of 16

    After::

        out[16:24] = total[16:32][0:8]

    For the former LLVM keeps the sums as single numbers wherever branches meet: the first
    convolution of ShuffleNet 1x took 1.9 times as long.
    """
    tiles = tiles_in(function.body)

    def load(value: Any) -> Any:
        at = value.indices[0] if len(value.indices) == 1 else None
        if not isinstance(at, tirx.Ramp) or not isinstance(at.base, tirx.IntImm):
            return value
        first, wanted = int(at.base), int(at.lanes)
        if wanted >= lanes or first % lanes or not any(value.source.same_as(t) for t in tiles):
            return value
        if int(at.stride) != 1 or first + lanes > int(value.source.shape[0]):
            return value
        whole = tirx.BufferLoad(value.source, [tirx.Ramp(at.base, 1, lanes)])
        return picked([whole], range(wanted))

    return function.with_body(structural_map(function.body, (tvm.ir.TensorLoad, load)))


def keep_on_stack(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Let a function have its tiles on the stack.

    TVM takes larger ones from a workspace of the device. An internal function does not know the
    device, and of a workspace LLVM thinks that a fetch of weights may read it: sums then went there
    in every step, and layers of 14x14 pixels took 1.25 times as long.
    """

    def keep(allocation: Any) -> Any:
        kept = {"disable_lower_builtin": tirx.IntImm("bool", 1)}
        return tirx.AllocBuffer(allocation.buffer, {**dict(allocation.annotations or {}), **kept})

    return function.with_body(structural_map(function.body, (tirx.AllocBuffer, keep)))
