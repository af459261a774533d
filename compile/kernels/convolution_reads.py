"""What the schedule forms of a convolution ask of it: the order of its loops, and how it loads."""

from __future__ import annotations

from tvm import tirx

from shuffledeploy.compiler.ir.memory_layout import FLOAT, HALF
from shuffledeploy.compiler.ir.tir import tensor_bytes
from shuffledeploy.compiler.kernels.tiling import Core

# Pixels of a layer, in bytes, up to which they stay in a core's own cache.
CACHED_BELOW = 1 << 19
# Channels of the input that are loaded as one vector where a multiply-add can pick a lane: the most
# for which a group reads whole vectors. Four halves fill half a register.
STAGED = {FLOAT: (4,), HALF: (8, 4)}
# The same on a core that issues in order, where half a register costs less: each is tried.
STAGED_IN_ORDER = {FLOAT: (2, 4), HALF: (4, 8)}


def loop_orders(function: tirx.PrimFunc, core: Core) -> tuple[str, ...]:
    """List the orders of the loops over tiles, the best guess first.

    Returns
    -------
    tuple of str
        Of each the loops from the outermost on: ``p`` over pixels, ``q`` over groups, ``o`` over
        blocks of outputs.
    """
    has_planes = int(function.params[0].shape[0]) > 1
    if core.multiplies_by_lane and int(function.attrs["one_row"]):
        # With pixels outside of blocks of outputs, weights come into the first level one line
        # after the other, and pixels, which lie apart, once. Groups have pixels of their own where
        # they have planes.
        return ("qpo" if has_planes else "pqo", "qop")
    # With groups outermost all pixels are read once for each: well where they stay in the cache, or
    # where the weights, which are then read once, are the larger part, or groups have planes.
    pixels = _bytes_read(function) + _bytes(function.params[-1]) * (rows_of_a_pixel(function) - 1)
    groups_first = has_planes or pixels <= max(CACHED_BELOW, _bytes(function.params[1]))
    return ("qop", "pqo") if groups_first else ("pqo", "qop")


def staged_channels(run: int, core: Core) -> list[int]:
    """List how many channels a tile may load as one vector."""
    if not core.multiplies_by_lane:
        return []
    widths = (STAGED_IN_ORDER if core.in_order else STAGED)[core.element]
    fitting = [width for width in widths if run > 0 and run % width == 0]
    return fitting if core.in_order else fitting[:1]


def stride_of_rows(function: tirx.PrimFunc, core: Core) -> int:
    """Tell the stride of a window over rows whose columns stand beside each other; else 0.

    That is how the first convolution finds the network's input.
    """
    image, *others = function.params
    found_by_table = any(str(buffer.name) == "channels" for buffer in others)
    if int(function.attrs["run"]) or found_by_table or not picks_lanes(core):
        return 0
    return max(1, int(image.shape[3]) // int(function.attrs["columns"]))


def picks_lanes(core: Core) -> bool:
    """Tell whether a multiply-add picks a lane of any register.

    In half precision it picks lanes of half of the registers only, and LLVM copies what stands in
    others.
    """
    return core.multiplies_by_lane and core.element == FLOAT


def rows_of_a_pixel(function: tirx.PrimFunc) -> int:
    """Count the tensors that have channels of each pixel: input, output, and what is added."""
    _, *others = function.params
    written = [int(extent) for extent in function.params[-1].shape]
    return 1 + [[int(extent) for extent in buffer.shape] for buffer in others].count(written)


def _bytes_read(function: tirx.PrimFunc) -> int:
    """Count the bytes of the input: a window that is narrower than its stride skips pixels."""
    image, weight, out = function.params[0], function.params[1], function.params[-1]
    read = [*out.shape[1:3], *weight.shape[1:3], image.shape[3]]
    return min(_bytes(image), tensor_bytes(read, image.dtype))


def _bytes(buffer: tirx.Buffer) -> int:
    return tensor_bytes(buffer.shape, buffer.dtype)
