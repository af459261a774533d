"""Tensors between layers are held in int8, and convolutions read them so.

Before::

    x -> conv2d(V) -> relu -> conv2d(W) -> add(b) -> relu -> mean -> answer

After::

    x -> conv2d(V) -> relu -> quantize(s) -> dequantize(s) -> conv2d(W') -> add(b') -> relu
        -> quantize(t) -> dequantize(t) -> mean -> answer

Each pair is one tensor in memory: the kernel before it writes int8, the kernels behind it read them
(`lower_to_kernels`). W' are the weights rounded to 127 steps of each output channel, and b' takes
back what that changes of the channel's mean. A tensor has one scale, and zero in the middle, or at
the end where nothing is negative; both come with the module (:mod:`compiler.int8_ranges`). The
parts of a concatenation are held as the whole. What no kernel reads in int8 (the input of a
maximum or of TVM's own rules) stays float32, and so does a convolution of fewer than four channels.
A linear layer reads what a mean or another linear layer wrote. The module's attribute
`KEPT_FLOAT32` names layers that stay float32: what they read is not held in int8, and their weights
are not rounded. What they write is held as that of others.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tvm
from tvm import relax

from shuffledeploy.compiler.ir.attributes import INT8_MEANS, INT8_SCALES, INT8_ZEROS
from shuffledeploy.compiler.ir.graph import (
    Array,
    Readers,
    bindings_of,
    constant,
    constant_of,
    is_depthwise,
    operator,
    readers_of,
    rebuild,
    shape_of,
    substitute,
)
from shuffledeploy.compiler.ir.memory_layout import FLOAT, INT8, Held
from shuffledeploy.compiler.kernels.int8_products import FOUR
from shuffledeploy.compiler.kernels.int8_weights import rounded, scales_of
from shuffledeploy.compiler.passes.graph.epilogues import Chain, find_chains
from shuffledeploy.compiler.passes.graph.kept_layers import kept_chains
from shuffledeploy.compiler.passes.graph.lower_to_kernels import is_covered
from shuffledeploy.compiler.passes.graph.reordered_reads import reordered

# Kernels that can write feature maps, and rows of features, in int8.
_WRITERS = frozenset({
    "relax.nn.conv2d", "relax.nn.avg_pool2d", "relax.nn.max_pool2d", "relax.concat",
})  # fmt: skip
_WRITERS_OF_ROWS = frozenset({"relax.mean", "relax.matmul"})
# What reads int8 whatever its shape is.
_READERS = frozenset({"relax.nn.avg_pool2d", "relax.mean", "relax.add"})


def int8_tensors(module: tvm.IRModule) -> tuple[relax.Var, ...]:
    """List the tensors that are to be held in int8, in the module's order.

    Parameters
    ----------
    module : tvm.IRModule
        Float32, batch norms folded, layouts chosen.
    """
    return tuple(_Network.of(module).held)


def held_alike(module: tvm.IRModule, ways: Sequence[Held]) -> list[Held]:
    """Hold the parts of concatenations as the whole, so that they are joined as they are.

    Parameters
    ----------
    module, ways : tvm.IRModule, sequence of Held
        The module, and how each of its :func:`int8_tensors` would be held.
    """
    return _Network.of(module).with_shared(ways)


def compute_in_int8(module: tvm.IRModule) -> tvm.IRModule:
    """Hold tensors in int8; see the module's docstring.

    Parameters
    ----------
    module : tvm.IRModule
        Float32, batch norms folded, layouts chosen, with the attributes `INT8_SCALES`,
        `INT8_ZEROS` and `INT8_MEANS`.
    """
    network = _Network.of(module)
    facts = zip(module.attrs[INT8_SCALES], module.attrs[INT8_ZEROS], strict=True)
    ways = [Held(float(scale), int(zero)) for scale, zero in facts]
    held = dict(zip(network.held, ways, strict=True))
    means = network.means(np.asarray(module.attrs[INT8_MEANS].numpy()))
    corrections: dict[relax.Var, Array] = {}
    replaced: dict[relax.Var, Any] = {}

    def current(variable: relax.Var) -> Any:
        return replaced.get(variable, variable)

    def emit(builder: relax.BlockBuilder, variable: relax.Var, value: Any) -> None:
        source = network.held_source(value)
        if source is not None:
            value, change = _rounded(value, network.read_means(value, means[source]))
            bias = network.bias_of(variable)
            if bias is not None:
                corrections[bias] = change
                change = np.zeros(0)
            value = builder.emit(substitute(value, current))
            if change.size:
                # A sum starts from a bias, which has room for what zeros add to it.
                value = relax.op.add(value, constant(change))
        elif variable in corrections:
            value = substitute(_more(value, corrections[variable]), current)
        else:
            value = substitute(value, current)
        new = builder.emit(value) if not isinstance(value, relax.Var) else value
        replaced[variable] = _held(builder, new, held[variable]) if variable in held else new

    return rebuild(module, emit, lambda _, result: substitute(result, current))


def _held(builder: relax.BlockBuilder, tensor: Any, held: Held) -> Any:
    """Write a tensor and read it back."""
    facts = relax.const(held.scale, FLOAT), relax.const(held.zero, INT8)
    written = builder.emit(relax.op.quantize(tensor, *facts, axis=-1, out_dtype=INT8))
    return builder.emit(relax.op.dequantize(written, *facts, axis=-1, out_dtype=FLOAT))


def _rounded(layer: Any, means: Array) -> tuple[Any, Array]:
    """Round the weights of a convolution or a product; give it, and what to add in return."""
    weight = constant_of(layer.args[1])
    assert weight is not None
    scales = scales_of(weight)
    whole = rounded(weight, scales).astype(np.float32) * scales
    groups = 1 if operator(layer) == "relax.matmul" else int(layer.attrs.groups)
    *_, depth, outputs = weight.shape
    lost = (weight - whole).reshape(-1, depth, groups, outputs // groups).sum(axis=0)
    change = np.einsum("kgo,gk->go", lost, means.reshape(groups, depth)).reshape(outputs)
    arguments = [layer.args[0], constant(whole)]
    new = tvm.ir.Call(layer.op, arguments, layer.attrs, layer.ty_args)
    return new, change.astype(np.float32)


def _more(addition: Any, change: Array) -> Any:
    """Add to the constant of an addition."""
    arguments = [
        argument if (array := constant_of(argument)) is None
        else constant((array.reshape(-1) + change).astype(np.float32).reshape(_over(array, change)))
        for argument in addition.args
    ]  # fmt: skip
    return tvm.ir.Call(addition.op, arguments, addition.attrs, addition.ty_args)


def _over(array: Array, change: Array) -> tuple[int, ...]:
    return (*([1] * (max(array.ndim, 1) - 1)), change.size)


@dataclasses.dataclass(frozen=True)
class _Network:
    """What each variable is bound to, who reads it, and which are to be held in int8."""

    definitions: Mapping[relax.Var, Any]
    readers: Readers
    chains: Mapping[relax.Var, Chain]
    held: Mapping[relax.Var, Chain]

    @staticmethod
    def of(module: tvm.IRModule) -> _Network:
        """Look at a module."""
        definitions, readers = dict(bindings_of(module)), readers_of(module)
        chains = find_chains(module, is_covered)
        network = _Network(definitions, readers, chains, {})
        ends = {_end(chain): chain for chain in chains.values() if network.can_write(chain)}
        held: dict[relax.Var, Chain] = {}
        kept = {read for chain in kept_chains(module) for read in network.read_by(chain.anchor)}
        # Those that read first: a concatenation reads int8 where it writes them.
        for variable in reversed(list(definitions)):
            if (
                variable in ends
                and variable not in kept
                and any(
                    network.can_read(reader, variable, held) for reader in readers.get(variable, ())
                )
            ):
                held[variable] = ends[variable]
        return dataclasses.replace(network, held=dict(reversed(held.items())))

    def can_write(self, chain: Chain) -> bool:
        """Whether a chain's kernel can write int8."""
        dimensions = len(shape_of(_end(chain)) or ())
        writers = {4: _WRITERS, 2: _WRITERS_OF_ROWS}.get(dimensions, frozenset())
        return operator(chain.anchor) in writers and chain.anchor.ty.dtype == FLOAT

    def can_read(
        self, reader: relax.Var | None, read: relax.Var, held: Mapping[relax.Var, Chain]
    ) -> bool:
        """Whether a reader's kernel can take int8."""
        value: Any = None if reader is None else self.definitions[reader]
        name = operator(value)
        if name == "relax.take":
            return any(self.can_read(r, reader, held) for r in self.readers.get(reader, ()))
        if name in ("relax.nn.conv2d", "relax.matmul"):
            return value.args[0].same_as(read) and _takes_int8(value)
        if name == "relax.concat":
            return any(chain.variables[0].same_as(reader) for chain in held.values())
        return name in _READERS and is_covered_or_sum(value)

    def read_by(self, anchor: Any) -> list[Any]:
        """List the tensors that an operator reads, through orders of channels and pixels."""
        if not operator(anchor):
            return []
        first = anchor.args[0]
        tensors = list(first.fields) if isinstance(first, relax.Tuple) else [first]
        return [self.source_of(tensor) for tensor in tensors]

    def source_of(self, tensor: Any) -> Any:
        """Look through an order of channels or pixels."""
        return reordered(tensor, self.definitions.get).tensor

    def held_source(self, value: Any) -> relax.Var | None:
        """Give the tensor in int8 that a layer with weights reads; ``None`` where it reads none."""
        if operator(value) not in ("relax.nn.conv2d", "relax.matmul") or not _takes_int8(value):
            return None
        source = self.source_of(value.args[0])
        return source if isinstance(source, relax.Var) and source in self.held else None

    def read_means(self, value: Any, means: Array) -> Array:
        """Give the mean of each channel that a convolution reads, in its order."""
        order = reordered(value.args[0], self.definitions.get).channels
        return means if order is None else means[order]

    def bias_of(self, variable: relax.Var) -> relax.Var | None:
        """Give the addition of a constant that alone reads a convolution."""
        readers = self.readers.get(variable, ())
        reader = readers[0] if len(readers) == 1 else None
        value: Any = self.definitions.get(reader) if reader is not None else None
        adds = operator(value) == "relax.add"
        return reader if adds and any(constant_of(a) is not None for a in value.args) else None

    def means(self, flat: Array) -> dict[relax.Var, Array]:
        """Part the means of all tensors."""
        channels = [(shape_of(variable) or (0,))[-1] for variable in self.held]
        parts = np.split(flat, np.cumsum(channels)[:-1])
        return dict(zip(self.held, parts, strict=True))

    def with_shared(self, ways: Sequence[Held]) -> list[Held]:
        """Hold the parts of a concatenation as the whole is held."""
        by_variable = dict(zip(self.held, ways, strict=True))
        for variable, chain in self.held.items():
            if operator(chain.anchor) != "relax.concat":
                continue
            for part in map(self.source_of, chain.anchor.args[0].fields):
                if part in by_variable and len(self.readers[part]) == 1:
                    by_variable[part] = by_variable[variable]
        return list(by_variable.values())


def _end(chain: Chain) -> relax.Var:
    """Give the last variable of a chain before its channels are put in another order."""
    return chain.variables[-1 if chain.order is None else -2]


def _takes_int8(layer: Any) -> bool:
    weight = constant_of(layer.args[1])
    if operator(layer) == "relax.matmul":
        return weight is not None and weight.ndim == 2 and weight.shape[0] >= FOUR
    if weight is None or layer.attrs.data_layout != "NHWC":
        return False
    return is_depthwise(layer) or weight.shape[2] >= FOUR


def is_covered_or_sum(value: Any) -> bool:
    """Whether a pool, a mean or a sum of two feature maps is read by a kernel of ours."""
    if operator(value) != "relax.add":
        return is_covered(value)
    return all(shape_of(argument) == shape_of(value) for argument in value.args)
