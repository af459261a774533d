"""Which neighbouring layers are computed together: those whose tensors no cache holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence, Set

import tvm
from tvm import relax, tirx

from shuffledeploy.compiler.ir.graph import (
    Readers,
    fresh_variables,
    is_last_read,
    readers_of,
    shape_of,
)
from shuffledeploy.compiler.ir.tir import tensor_bytes
from shuffledeploy.compiler.strips.kernel_calls import KernelCall, bytes_of, segments_of
from shuffledeploy.compiler.strips.ranged import rows_read
from shuffledeploy.compiler.strips.strip_plan import (
    Layer,
    Source,
    overwrites_unread,
    places_of,
    working_set,
)

# The largest layer's share of a strip, in parts of the cache: of 16 to 64 there was no difference.
STRIPS_IN_CACHE = 16


@dataclasses.dataclass(frozen=True)
class StripGroup:
    """Calls that are computed together.

    Attributes
    ----------
    given : tuple of relax.Var
        Tensors from outside that calls are written over.
    calls : tuple of KernelCall
        In the network's order.
    layers : tuple of Layer
        What the plan is made of: one for each tensor that is given, then one for each call.
    strips : int
        How many strips of the largest layer, of one image.
    """

    given: tuple[relax.Var, ...]
    calls: tuple[KernelCall, ...]
    layers: tuple[Layer, ...]
    strips: int

    @property
    def calls_and_layers(self) -> list[tuple[KernelCall, Layer]]:
        """Each call with its layer."""
        return list(zip(self.calls, self.layers[len(self.given) :], strict=True))

    @property
    def images(self) -> int:
        """How many images go through the group, one after another."""
        return self.calls[0].images

    @property
    def places(self) -> dict[relax.Var, int]:
        """Which layer each tensor of the group is."""
        tensors = (*self.given, *(call.variable for call in self.calls))
        return {tensor: index for index, tensor in enumerate(tensors)}


def find_groups(
    module: tvm.IRModule,
    unscheduled: Mapping[str, tirx.PrimFunc],
    cache: int,
    small_indices: bool,
) -> list[StripGroup]:
    """Find the groups of two layers and more that move the fewest bytes to and from memory.

    Parameters
    ----------
    module : tvm.IRModule
        Calls of scheduled kernels.
    unscheduled : mapping
        The same kernels before they were scheduled, by name.
    cache : int
        Bytes that stay close to the core.
    small_indices : bool
        As of `ranged`.
    """
    finder = _Finder(readers_of(module), fresh_variables(module), cache)
    return [
        group
        for segment in segments_of(module, unscheduled, small_indices)
        for group in finder.cut(segment)
        if len(group.calls) > 1
    ]


def _without_loss(layers: tuple[Layer, ...], strips: int) -> tuple[Layer, ...]:
    """Give layers rows of their own that would be written over what is still to be read."""
    while lost := overwrites_unread(layers, strips):
        layers = tuple(
            dataclasses.replace(layer, over=None) if index in lost else layer
            for index, layer in enumerate(layers)
        )
    return layers


@dataclasses.dataclass(frozen=True)
class _Finder:
    """Finds groups; remembers which rows kernels read."""

    readers: Readers
    fresh: Set[relax.Var]
    cache: int
    rows: dict[tuple[str, int], tuple[tuple[int, ...], tuple[int, ...]]] = dataclasses.field(
        default_factory=dict
    )

    @property
    def large(self) -> int:
        """Bytes up to which a tensor stays in the cache from layer to layer."""
        return self.cache // 2

    def cut(self, segment: Sequence[KernelCall]) -> list[StripGroup]:
        """Cut neighbours into the groups that move the fewest bytes, the shortest of equals.

        None where no tensor is large: nothing moves, whatever the groups are.
        """
        tensors = {
            a for c in segment for a in (c.variable, *c.arguments) if isinstance(a, relax.Var)
        }
        if all(bytes_of(tensor) <= self.large for tensor in tensors):
            return []
        ending: list[list[tuple[int, StripGroup]]] = [[] for _ in range(len(segment) + 1)]
        for start in range(len(segment)):
            for group in self._groups_from(segment[start:]):
                ending[start + len(group.calls)].append((start, group))
        # Of the first calls: fewest bytes, most groups, and the last group.
        best: list[tuple[int, int, StripGroup | None]] = [(0, 0, None)]
        for groups in ending[1:]:
            options = [
                (best[start][0] + self._moved(group), best[start][1] - 1, group)
                for start, group in groups
            ]
            best.append(min(options, key=lambda option: option[:2]))
        found: list[StripGroup] = []
        at = len(segment)
        while (last := best[at][2]) is not None:
            found.append(last)
            at -= len(last.calls)
        return found[::-1]

    def _groups_from(self, segment: Sequence[KernelCall]) -> Iterator[StripGroup]:
        """Yield the groups that begin with a call and fit most of the cache."""
        for length in range(1, len(segment) + 1):
            calls = tuple(segment[:length])
            largest = max(call.size // call.images for call in calls)
            strips = max(1, -(-largest * STRIPS_IN_CACHE // self.cache))
            given, layers = self._layers(calls)
            layers = _without_loss(layers, strips)
            weights = sum(call.weights for call in calls)
            if length > 1 and working_set(layers, strips) + weights > self.cache * 3 // 4:
                return
            yield StripGroup(given, calls, layers, strips)

    def _moved(self, group: StripGroup) -> int:
        """Bytes of activations that a group takes from memory and brings there.

        A cache reads what is written first, unless it did already. Small tensors stay in it from
        group to group.
        """
        inside = {call.variable for call in group.calls}
        at = places_of(group.layers)
        read = {
            tensor: size
            for call in group.calls
            for tensor, size in call.read.items()
            if tensor not in inside
        }
        written = [
            call.size
            for (call, layer), place in zip(
                group.calls_and_layers, at[len(group.given) :], strict=True
            )
            if layer.kept and not group.layers[place].given
        ]
        over = [bytes_of(tensor) for tensor in group.given]
        come, go, back = (
            sum(size for size in sizes if size > self.large)
            for sizes in (read.values(), written, over)
        )
        return come + 2 * go + back

    def _layers(
        self, calls: tuple[KernelCall, ...]
    ) -> tuple[tuple[relax.Var, ...], tuple[Layer, ...]]:
        """Give what a group is made of: what its calls are written over, and its layers."""
        variables = {call.variable for call in calls}
        over = {call.variable: self._over(call) for call in calls}
        given = tuple(x for x in over.values() if x is not None and x not in variables)
        tensors = (*given, *(call.variable for call in calls))
        inside = {tensor: index for index, tensor in enumerate(tensors)}
        layers = []
        for tensor in given:
            _, height, width, channels = shape_of(tensor) or ()
            dtype = str(tensor.ty.dtype)
            row = tensor_bytes((width, channels), dtype)
            layers.append(
                Layer(height, width, row, width, height, (), kept=True, given=True, dtype=dtype)
            )
        for call in calls:
            _, height, width, channels = call.shape
            sources = tuple(
                Source(inside[argument], *self._rows(call, position))
                for position, argument in enumerate(call.arguments)
                if argument in inside
            )
            kept = any(reader not in inside for reader in self.readers.get(call.variable, ()))
            dtype, kernel = str(call.variable.ty.dtype), call.ranged
            row = tensor_bytes((width, channels), dtype)
            below = over[call.variable]
            layers.append(
                Layer(
                    height, width, row, kernel.unit, kernel.units, sources, kept,
                    None if below is None else inside[below], dtype=dtype,
                )
            )  # fmt: skip
        return given, tuple(layers)

    def _over(self, call: KernelCall) -> relax.Var | None:
        """Tell which tensor nobody reads any more but to sum it into what a call writes."""
        residual = None if call.residual is None else call.arguments[call.residual]
        if residual not in self.fresh:
            return None
        return residual if is_last_read(self.readers, residual, call.variable) else None

    def _rows(self, call: KernelCall, position: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Tabulate what `Source.needs` and `Source.keeps` hold, of one input of a kernel."""
        key = (call.name, position)
        _, height, width, _ = call.shape
        if position == call.residual:
            # Each row is read for the same one of the output.
            return (tuple(range(height + 1)),) * 2
        if key not in self.rows:
            rows = int(call.unscheduled.params[position].shape[1])
            spans = [
                rows_read(call.unscheduled, position, (row * width, (row + 1) * width)) or (0, rows)
                for row in range(height)
            ]
            needs, keeps = [0], [rows]
            for _, end in spans:
                needs.append(max(needs[-1], end))
            for begin, _ in reversed(spans):
                keeps.append(min(keeps[-1], begin))
            self.rows[key] = (tuple(needs), tuple(reversed(keeps)))
        return self.rows[key]
