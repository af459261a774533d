"""Converts an exported program to one of ExecuTorch, delegated to XNNPACK; a process of its own.

``python -m ... PROGRAM.pt2 MODEL.pte``. Images get their channels last, as XNNPACK has them.
ExecuTorch's partitioner folds batch norms and fuses ReLU. It leaves two kinds of pooling to slow
kernels of its own, which take half of a ShuffleNet's instructions, unless they are written as
XNNPACK has them::

    average pool that counts its padding   ->   pad with zeros, average pool without padding
                                in int8:   ->   depthwise convolution of equal weights
    mean over rows and columns             ->   the same keeping both dimensions, reshape
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from torch import fx

_ATEN = torch.ops.aten


def main(program_file: str, model_file: str) -> None:
    """Convert a program of one image."""
    write_program(*prepared_network(program_file), model_file)


def prepared_network(
    program_file: str, *, in_int8: bool = False
) -> tuple[fx.GraphModule, torch.Tensor]:
    """Read a program of one image: its network with pools as XNNPACK has them, and the image."""
    program = torch.export.load(program_file)
    if program.example_inputs is None:
        raise ValueError(f"{program_file} has no example of its input")
    (image,) = program.example_inputs[0]
    network = program.module()
    rewrite_pools(network, in_int8=in_int8)
    return network, image.to(memory_format=torch.channels_last)


def write_program(network: fx.GraphModule, image: torch.Tensor, model_file: str) -> None:
    """Lower a network to XNNPACK and write it."""
    exported = torch.export.export(network, (image,))
    lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    Path(model_file).write_bytes(lowered.to_executorch().buffer)


def rewrite_pools(network: fx.GraphModule, *, in_int8: bool = False) -> None:
    """Write pools in the way that XNNPACK has them, in place; values stay the same.

    Parameters
    ----------
    network : fx.GraphModule
        Of an exported program: its nodes carry ``meta["val"]``.
    in_int8 : bool
        Whether it will be quantised: a mean that counts padding is then a depthwise convolution,
        for XNNPACK's quantiser leaves padding in float32, which XNNPACK then refuses.
    """
    average = _convolve_in_place_of if in_int8 else _pad_before
    for node in list(network.graph.nodes):
        with network.graph.inserting_before(node):
            if node.target is _ATEN.avg_pool2d.default and _counts_padding(node):
                average(network.graph, node)
            elif node.target is _ATEN.mean.dim and not (node.args[2:] and node.args[2]):
                _keep_dimensions(network.graph, node)
    network.graph.eliminate_dead_code()
    network.recompile()


def _counts_padding(pool: fx.Node) -> bool:
    """Whether a pool pads, and takes neither of the options that would change what it divides."""
    return len(pool.args) == 4 and any(pool.args[3]) and not pool.kwargs


def _pad_before(graph: fx.Graph, pool: fx.Node) -> None:
    image, kernel, stride, padding = pool.args
    rows, columns = padding if len(padding) == 2 else padding * 2
    around = [columns, columns, rows, rows]
    padded = graph.call_function(_ATEN.constant_pad_nd.default, (image, around, 0.0))
    pool.args = (padded, kernel, stride)


def _convolve_in_place_of(graph: fx.Graph, pool: fx.Node) -> None:
    image, kernel, stride, padding = pool.args
    assert isinstance(image, fx.Node) and isinstance(kernel, list)
    channels = image.meta["val"].shape[1]
    name = f"weights_of_{pool.name}"
    parts = torch.full((channels, 1, *kernel), 1 / math.prod(kernel))
    graph.owning_module.register_buffer(name, parts)
    one = [1, 1]
    operands = (image, graph.get_attr(name), None, stride, padding, one, channels)
    pool.replace_all_uses_with(graph.call_function(_ATEN.conv2d.default, operands))


def _keep_dimensions(graph: fx.Graph, mean: fx.Node) -> None:
    kept = graph.call_function(_ATEN.mean.dim, (*mean.args[:2], True), mean.kwargs)
    shape = list(mean.meta["val"].shape)
    mean.replace_all_uses_with(graph.call_function(_ATEN.reshape.default, (kept, shape)))


if __name__ == "__main__":
    main(*sys.argv[1:])
