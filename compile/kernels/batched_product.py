"""Products of two tensors that the network computes, matrix by matrix of a batch.

For each pair of batch indices the kernel computes::

    out[m, n] = scale * sum over k of left[m, k] * right[k, n]

The right matrix is packed first, its columns padded to whole vectors. Operands are read, and rows
written, where strides say, so that transpositions and slices around a product cost nothing.
"""

from __future__ import annotations

import dataclasses

import tvm
from tvm import tirx
from tvm.s_tir import Schedule
from tvm.tirx.script.builder import ir as T

from shuffledeploy.compiler.ir.attributes import LANES
from shuffledeploy.compiler.ir.memory_layout import FLOAT
from shuffledeploy.compiler.kernels.blocks import ACCUMULATE, OUTPUT, axes, named, written
from shuffledeploy.compiler.kernels.matrix_tiles import (
    RegisterTiles,
    begin_in_registers,
    compute_in_tiles,
    copy_by_vectors,
    padded_columns,
    register_tiles,
    write_by_vectors,
)
from shuffledeploy.compiler.kernels.row_blocks import count_blocks, row_of, rows_of_block
from shuffledeploy.compiler.kernels.strided import Strided, packed
from shuffledeploy.compiler.kernels.tiling import Choose, Core, Form, divisors, extents_of

_PACKED = "packed_columns"


@dataclasses.dataclass(frozen=True)
class Product:
    """What one batched product computes.

    Attributes
    ----------
    batch : tuple of int
        Outer and inner extent.
    rows, columns, depth : int
        Of each product, and terms of each sum.
    left, right, out : Strided
        The operands, ``(rows, depth)`` and ``(depth, columns)``, and what is written.
    scale : float
        What sums are multiplied with.
    lanes : int
        Floats in a vector.
    """

    batch: tuple[int, int]
    rows: int
    columns: int
    depth: int
    left: Strided
    right: Strided
    out: Strided
    scale: float
    lanes: int

    @property
    def padded(self) -> int:
        """Columns with those that fill the last vector."""
        return padded_columns(self.columns, self.lanes)

    @property
    def multiply_adds(self) -> int:
        """Of one call."""
        outer, inner = self.batch
        return outer * inner * self.rows * self.columns * self.depth


def primitive_function(product: Product) -> tirx.PrimFunc:
    """Write the kernel as an unscheduled TIR function.

    Returns
    -------
    tirx.PrimFunc
        Parameters: memory of the left and of the right operand, output, each ``(size,)``.
    """
    return written(lambda: _body(product))


def _body(p: Product) -> None:
    left = T.arg("left", T.buffer((p.left.size,), FLOAT))
    right = T.arg("right", T.buffer((p.right.size,), FLOAT))
    out = T.arg("out", T.buffer((p.out.size,), FLOAT))
    extents = (*p.batch, p.depth, p.padded)
    columns = packed(_PACKED, right, p.right, extents, p.columns)
    block = rows_of_block(p.rows)
    rows = (*p.batch, count_blocks(p.rows, block), block)
    total = named("total", T.sblock_alloc_buffer((*rows, p.padded), FLOAT))
    with T.grid(*rows, p.padded, p.depth) as loops:
        with T.sblock(ACCUMULATE):
            b, c, i, r, n, k = axes("SSSSSR", "b c i r n k", loops)
            with T.init():
                T.buffer_store(total, T.float32(0), [b, c, i, r, n])
            term = left[p.left.at(b, c, row_of(p.rows, block, i, r), k)] * columns[b, c, k, n]
            T.buffer_store(total, total[b, c, i, r, n] + term, [b, c, i, r, n])
    with T.grid(*rows, p.columns) as loops:
        with T.sblock(OUTPUT):
            b, c, i, r, n = axes("SSSSS", "b c i r n", loops)
            value = total[b, c, i, r, n]
            if p.scale != 1:
                value = value * T.float32(p.scale)
            T.buffer_store(out, value, [p.out.at(b, c, row_of(p.rows, block, i, r), n)])


def product_forms(function: tirx.PrimFunc, core: Core) -> list[Form]:
    """List the forms of a batched product, the one with the fewest loads a multiply-add first."""
    probe = Schedule(tvm.IRModule({"main": function}))
    lanes = int(function.attrs[LANES])
    *_, rows, padded, _ = extents_of(probe, probe.get_sblock(ACCUMULATE))
    whole = extents_of(probe, probe.get_sblock(OUTPUT))[-1] == padded
    widths = divisors(padded // lanes, core.registers) if whole else [padded // lanes]
    return [_form(lanes, tiles) for tiles in register_tiles(rows, widths, core)]


def _form(lanes: int, tiles: RegisterTiles) -> Form:
    def apply(schedule: Schedule, choose: Choose) -> None:
        accumulate, output = schedule.get_sblock(ACCUMULATE), schedule.get_sblock(OUTPUT)
        loops = compute_in_tiles(schedule, accumulate, lanes, tiles, choose)
        schedule.reverse_compute_at(output, loops.tile, preserve_unit_loops=True)
        write_by_vectors(schedule, output, lanes)
        copy = schedule.get_sblock(_PACKED)
        schedule.compute_at(copy, loops.outer[1], preserve_unit_loops=True)
        copy_by_vectors(schedule, copy, lanes)
        begin_in_registers(schedule, accumulate, loops)

    return apply
