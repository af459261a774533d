"""Which elementwise operations can ride on the kernel before them, and which make their own.

An epilogue is the longest run of regions after a kernel: one operation that alone reads the value
before it, or several that read it and each other, of which others read the last alone::

    conv -> add(3) -> clip(0, 6) -> multiply -> ...      # hard-swish: one region of three
         +------------------------>+

A tensor that is to be held in int8 (:mod:`compiler.passes.graph.compute_in_int8`) ends a run::

    conv -> relu -> quantize -> dequantize -> ...
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import tvm
from tvm import relax

from shuffledeploy.compiler.ir.graph import (
    Array,
    Readers,
    bindings_of,
    constant_of,
    is_depthwise,
    is_permutation,
    is_pointwise,
    operator,
    readers_of,
    shape_of,
)
from shuffledeploy.compiler.ir.memory_layout import Held
from shuffledeploy.compiler.kernels.blocks import EpilogueStep, Read, count_reads
from shuffledeploy.compiler.passes.graph.choose_layouts import TO_CHANNELS_LAST
from shuffledeploy.compiler.passes.graph.elementwise_steps import Step, step_for
from shuffledeploy.compiler.passes.graph.reordered_reads import is_reordered, reordered

#: Operations in one region at most.
MOST_IN_REGION = 12
_MOVES = ("relax.take", "relax.reshape", "relax.permute_dims", "relax.strided_slice")
#: Reads of what the kernel computed that one element of its output may take: a value that two
#: steps read is written twice.
MOST_READS = 24


@dataclasses.dataclass(frozen=True)
class Chain:
    """A kernel's anchor and what follows it.

    Attributes
    ----------
    anchor : relax.Call or relax.Var
        The convolution, pool, product or concatenation; of a kernel that has none, the tensor to
        which the steps are applied.
    variables : tuple of relax.Var
        The anchor's variable and those of the steps, in order; the last is what others read.
    steps : tuple of EpilogueStep
        The epilogue.
    operands : tuple
        What the steps read beside the values before them, in order: constants and variables, and
        behind a tensor that is read by a table that table.
    order : Array or None
        Channel ``c`` of what is written is channel ``order[c]`` of what was computed.
    held : Held or None
        How the chain's tensor is held in int8; ``None`` where it is held as it is.
    """

    anchor: Any
    variables: tuple[relax.Var, ...]
    steps: tuple[EpilogueStep, ...]
    operands: tuple[Any, ...]
    order: Array | None = None
    held: Held | None = None

    @property
    def computed(self) -> tuple[relax.Var, ...]:
        """The variables that the kernel computes, all but the last for itself."""
        return self.variables[1:] if isinstance(self.anchor, relax.Var) else self.variables

    def extended(self, variable: relax.Var, step: Step) -> Chain:
        """Append a step."""
        return dataclasses.replace(
            self, variables=(*self.variables, variable), steps=(*self.steps, step.step),
            operands=(*self.operands, *step.operands),
        )  # fmt: skip


def find_chains(module: tvm.IRModule, is_anchor: Callable[[Any], bool]) -> dict[relax.Var, Chain]:
    """Find the longest chain after each anchor, keyed by its last variable.

    An addition of two chains joins the one that is written first. What is left of elementwise
    operations on what kernels write makes chains without an anchor.
    """
    return _Finder(module).find(is_anchor)


class _Finder:
    """Looks for chains in one module."""

    def __init__(self, module: tvm.IRModule) -> None:
        self.values: dict[relax.Var, Any] = dict(bindings_of(module))
        self.places = {variable: place for place, variable in enumerate(self.values)}
        self.readers: Readers = readers_of(module)
        self.gathered = {
            variable: reordered(variable, self.values.get)
            for variable in self.values
            if len(shape_of(variable) or ()) == len(TO_CHANNELS_LAST)
            and is_reordered(variable, self.values.get)
        }
        self.taken: set[relax.Var] = set()
        self.chains: dict[relax.Var, Chain] = {}

    def find(self, is_anchor: Callable[[Any], bool]) -> dict[relax.Var, Chain]:
        """Find all chains."""
        for variable, value in self.values.items():
            if is_anchor(value):
                self._add(self._longest(Chain(value, (variable,), (), ())))
        for variable in self.values:
            chain = self._without_anchor(variable) if variable not in self.taken else None
            if chain is not None and self._is_left_whole(chain := self._longest(chain), is_anchor):
                self._add(chain)
        return self.chains

    def _add(self, chain: Chain) -> None:
        self.taken.update(chain.computed)
        self.chains[chain.variables[-1]] = chain

    def _longest(self, chain: Chain) -> Chain:
        while (longer := self._next(chain)) is not None:
            chain = longer
        return chain

    def _next(self, chain: Chain) -> Chain | None:
        return self._reordered(chain) or self._held(chain) or self._with_region(chain)

    def _held(self, chain: Chain) -> Chain | None:
        """Let a kernel write the int8 that `compute_in_int8` asked for."""
        quantised = self._only_reader(chain.variables[-1])
        if quantised is None or operator(self.values[quantised]) != "relax.quantize":
            return None
        back = self._only_reader(quantised)
        scale, zero = (constant_of(argument) for argument in self.values[quantised].args[1:])
        if (
            back is None
            or scale is None
            or zero is None
            or chain.held is not None
            or chain.order is not None
        ):
            return None
        if operator(self.values[back]) != "relax.dequantize" or isinstance(chain.anchor, relax.Var):
            return None
        variables = (*chain.variables, quantised, back)
        return dataclasses.replace(chain, variables=variables, held=Held(float(scale), int(zero)))

    def _is_left_whole(self, chain: Chain, is_anchor: Callable[[Any], bool]) -> bool:
        """Whether a chain without an anchor cuts nothing that TVM would compute in one kernel."""
        last = chain.variables[-1]
        others = (r for r in self.readers.get(last, ()) if r is not None)
        values = [self.values[reader] for reader in others]
        return all(
            is_anchor(value)
            or operator(value) in _MOVES
            or shape_of(value) != shape_of(last)
            or step_for(value, {last: 1}, shape_of(last), self.gathered, alone=False) is not None
            for value in values
        )

    def _without_anchor(self, variable: relax.Var) -> Chain | None:
        """Let an operation begin a chain where it is applied to what a kernel of ours wrote.

        Or to some of the channels of a tensor, whoever wrote it: nobody else reads by a table.
        """
        value = self.values[variable]
        for source in value.args if operator(value) else ():
            if source not in self.chains and source not in self.gathered:
                continue
            if shape_of(source) != shape_of(variable):
                continue
            chain = Chain(source, (source,), (), ())
            step = step_for(value, {source: 1}, shape_of(variable), self.gathered, alone=True)
            if len(shape_of(source) or ()) != len(TO_CHANNELS_LAST) or step is None:
                continue
            if step.step.reads is not Read.TENSOR or step.operands[0] in self.chains:
                return chain.extended(variable, step)
        return None

    def _only_reader(self, variable: relax.Var) -> relax.Var | None:
        readers = self.readers.get(variable, ())
        return readers[0] if len(readers) == 1 else None

    def _reordered(self, chain: Chain) -> Chain | None:
        """Let a pointwise convolution write in the order that `write_in_read_order` asked for."""
        variable = self._only_reader(chain.variables[-1])
        following = self._only_reader(variable) if variable is not None else None
        if variable is None or following is None or chain.order is not None:
            return None
        value = self.values[variable]
        if operator(value) != "relax.take" or variable in self.taken:
            return None
        if not (is_pointwise(chain.anchor) and is_depthwise(self.values[following])):
            return None
        order, channels = constant_of(value.args[1]), (shape_of(value.args[0]) or (0,))[-1]
        if order is None or not is_permutation(order, channels):
            return None
        return dataclasses.replace(chain, variables=(*chain.variables, variable), order=order)

    def _with_region(self, chain: Chain) -> Chain | None:
        """Append the shortest region of which others read the last value alone."""
        if chain.order is not None or chain.held is not None:
            return None
        first = chain.variables[-1]
        shape = shape_of(first)
        region = [first]
        for _ in range(MOST_IN_REGION):
            variable = self._next_reader(region)
            if variable is None or variable in self.taken:
                return None
            # Whoever wrote the tensor of a chain without an anchor left it in memory.
            known = {v: len(chain.variables) - n for n, v in enumerate(chain.variables)}
            readable = {v: back for v, back in known.items() if v in region or v is chain.anchor}
            alone = len(region) == 1 and self._only_reader(first) is not None
            value = self.values[variable]
            step = step_for(value, readable, shape, self.gathered, alone=alone)
            if step is None:
                return None
            chain = chain.extended(variable, step)
            region.append(variable)
            if self._is_closed(region):
                return chain if count_reads(chain.steps) <= MOST_READS else None
        return None

    def _next_reader(self, region: list[relax.Var]) -> relax.Var | None:
        """Give the first of those that read a region's values; None where an answer is one."""
        found = {r for v in region for r in self.readers.get(v, ()) if r not in region}
        if None in found or not found:
            return None
        return min((r for r in found if r is not None), key=lambda reader: self.places[reader])

    def _is_closed(self, region: list[relax.Var]) -> bool:
        *inside, _ = region
        return all(reader in region for v in inside for reader in self.readers.get(v, ()))
