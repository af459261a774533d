"""The usual operators of networks for pictures, written in core operators one by one.

`ExportedProgram.run_decompositions` traces a program anew, several times over, which is a tenth of
what compiling a small network takes. Where a program has none but the operators below, each is
replaced in place by what PyTorch would have decomposed it into::

    conv2d(x, w)  batch_norm(.., training=False)  relu_(..)

    convolution(x, w, ..)  _native_batch_norm_legit_no_training(..)[0]  relu(..)

An operator that writes over its input becomes one that does not where nothing else reads that
input's memory. All other programs are left to PyTorch.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram

from shuffledeploy.compiler.frontend.call_arguments import arguments

_aten = torch.ops.aten

#: Core operators, of which PyTorch makes nothing else, and whose result is new memory.
_COMPUTE = frozenset({
    "add.Tensor", "avg_pool2d.default", "cat.default", "clamp.default", "clone.default",
    "div.Tensor", "gelu.default", "hardtanh.default", "leaky_relu.default", "mean.dim",
    "mul.Tensor", "relu.default", "sigmoid.default", "sub.Tensor", "sum.dim_IntList",
})  # fmt: skip
#: The same, whose result may be the memory of what they read.
_LOOK = frozenset({
    "expand.default", "permute.default", "slice.Tensor", "split_with_sizes.default",
    "unsqueeze.default", "view.default",
})  # fmt: skip


class _NotPlain(Exception):
    """Something in a program is not for this module."""


def plainly_decomposed(exported: ExportedProgram) -> ExportedProgram | None:
    """Write a program in core operators.

    Returns
    -------
    ExportedProgram or None
        ``None`` where it has something that is not for this module: `run_decompositions` takes it.
    """
    signature = exported.graph_signature
    if signature.buffers_to_mutate or signature.user_inputs_to_mutate:
        return None
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    graph.output(graph.graph_copy(exported.graph, copies))
    for node, copied in copies.items():
        # The signature knows them by it; a copy of `input` would be `input_1`.
        copied.name = node.name
    try:
        for node in list(graph.nodes):
            if node.op == "call_function":
                _write(node)
            elif node.op not in {"placeholder", "output"}:
                return None
    except _NotPlain:
        return None
    return ExportedProgram(
        fx.GraphModule(exported.graph_module, graph), graph, copy.deepcopy(signature),
        exported.state_dict, exported.range_constraints, copy.deepcopy(exported.module_call_graph),
        exported.example_inputs, exported.constants, verifiers=exported.verifiers,
    )  # fmt: skip


def _write(node: fx.Node) -> None:
    """Make core operators of a node."""
    if node.target is operator.getitem:
        return
    if not isinstance(node.target, torch._ops.OpOverload) or node.target.namespace != "aten":
        raise _NotPlain
    values = node.meta.get("val")
    for value in values if isinstance(values, list | tuple) else (values,):
        if not isinstance(value, torch.Tensor) or value.dtype != torch.float32:
            raise _NotPlain
    name = str(node.target).removeprefix("aten.")
    base, overload = name.split(".")
    if base.endswith("_"):
        _require_only_reader(node)
        name = f"{base[:-1]}.{overload}"
        node.target = getattr(getattr(_aten, base[:-1]), overload)
    if name in _WRITERS:
        _WRITERS[name](node, arguments(node))
    elif name not in _COMPUTE | _LOOK:
        raise _NotPlain


def _require_only_reader(node: fx.Node) -> None:
    """Accept an operator that changes its first input where nothing else sees that change."""
    changed = node.args[0]
    if not isinstance(changed, fx.Node) or len(changed.users) != 1 or not _is_new(changed):
        raise _NotPlain


def _is_new(node: fx.Node) -> bool:
    """Whether a node, which is written in core operators, has memory of its own."""
    if node.op != "call_function":
        return False
    if node.target is operator.getitem:
        made = node.args[0]
        return isinstance(made, fx.Node) and made.target in {
            _aten._native_batch_norm_legit_no_training.default,
            _aten.max_pool2d_with_indices.default,
        }
    name = str(node.target).removeprefix("aten.")
    return name in _COMPUTE | {"convolution.default", "addmm.default", "mm.default"}


def _become(node: fx.Node, target: Any, *args: Any, **kwargs: Any) -> None:
    node.target, node.args, node.kwargs = target, args, kwargs


def _before(node: fx.Node, value: Any, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    """Add a call in front of a node; `value` is a tensor of the shape that it gives."""
    with node.graph.inserting_before(node):
        made = node.graph.call_function(target, args, kwargs)
    made.meta = {**node.meta, "val": value}
    return made


def _pair(values: Any) -> list[int]:
    if not isinstance(values, Sequence) or len(values) != 2:
        raise _NotPlain
    return list(values)


def _require_images(node: fx.Node) -> None:
    """Accept images in a batch: of one alone PyTorch makes a batch first."""
    if node.meta["val"].ndim != 4:
        raise _NotPlain


def _convolution(node: fx.Node, given: Mapping[str, Any]) -> None:
    _require_images(node)
    stride, padding, dilation = (_pair(given[key]) for key in ("stride", "padding", "dilation"))
    _become(
        node, _aten.convolution.default, given["input"], given["weight"], given["bias"], stride,
        padding, dilation, False, [0, 0], given["groups"],
    )  # fmt: skip


def _batch_norm(node: fx.Node, given: Mapping[str, Any]) -> None:
    names = ("input", "weight", "bias", "running_mean", "running_var")
    tensors = [given[name] for name in names]
    if given["training"] or any(tensor is None for tensor in tensors):
        raise _NotPlain
    value = node.meta["val"]
    # Mean and deviation, of which a network that learns nothing has none.
    values = (value, value.new_empty(0), value.new_empty(0))
    target = _aten._native_batch_norm_legit_no_training.default
    made = _before(node, values, target, *tensors, given["momentum"], given["eps"])
    _become(node, operator.getitem, made, 0)


def _max_pool(node: fx.Node, given: Mapping[str, Any]) -> None:
    _require_images(node)
    value = node.meta["val"]
    values = (value, value.new_empty(value.shape, dtype=torch.int64))
    made = _before(node, values, _aten.max_pool2d_with_indices.default, *node.args, **node.kwargs)
    _become(node, operator.getitem, made, 0)


def _adaptive_pool(node: fx.Node, given: Mapping[str, Any]) -> None:
    _require_images(node)
    if list(given["output_size"]) == [1, 1]:
        _become(node, _aten.mean.dim, given["self"], [-1, -2], True)
    else:
        _become(node, _aten._adaptive_avg_pool2d.default, given["self"], given["output_size"])


def _linear(node: fx.Node, given: Mapping[str, Any]) -> None:
    rows, weight, bias = given["input"], given["weight"], given["bias"]
    if rows.meta["val"].ndim != 2 or weight.meta["val"].ndim != 2:
        raise _NotPlain
    turned = _before(node, weight.meta["val"].t(), _aten.permute.default, weight, [1, 0])
    if bias is None:
        _become(node, _aten.mm.default, rows, turned)
    else:
        _become(node, _aten.addmm.default, bias, rows, turned)


def _reshape(node: fx.Node, given: Mapping[str, Any]) -> None:
    read, shape = given["self"], list(node.meta["val"].shape)
    value = read.meta["val"]
    if not value.is_contiguous():
        read = _before(node, value.contiguous(), _aten.clone.default, read, **_IN_ORDER)
    if list(value.shape) == shape:
        _become(node, _aten.clone.default, read)
    else:
        _become(node, _aten.view.default, read, shape)


def _transpose(node: fx.Node, given: Mapping[str, Any]) -> None:
    axes = list(range(node.meta["val"].ndim))
    one, other = given["dim0"], given["dim1"]
    axes[one], axes[other] = axes[other], axes[one]
    _become(node, _aten.permute.default, given["self"], axes)


def _split(node: fx.Node, given: Mapping[str, Any]) -> None:
    axis = given["dim"]
    sizes = [part.shape[axis] for part in node.meta["val"]]
    _become(node, _aten.split_with_sizes.default, given["self"], sizes, axis)


def _copied(node: fx.Node, given: Mapping[str, Any]) -> None:
    _become(node, _aten.clone.default, given["self"], **_IN_ORDER)


def _dropout(node: fx.Node, given: Mapping[str, Any]) -> None:
    if given["train"]:
        raise _NotPlain
    _become(node, _aten.clone.default, given["input"])


def _relu6(node: fx.Node, given: Mapping[str, Any]) -> None:
    _become(node, _aten.hardtanh.default, given["self"], 0, 6)


def _silu(node: fx.Node, given: Mapping[str, Any]) -> None:
    read, value = given["self"], node.meta["val"]
    _become(node, _aten.mul.Tensor, read, _before(node, value, _aten.sigmoid.default, read))


def _hard_swish(node: fx.Node, given: Mapping[str, Any]) -> None:
    read, value = given["self"], node.meta["val"]
    product = _before(node, value, _aten.mul.Tensor, read, _between_0_and_6(node, read))
    _become(node, _aten.div.Tensor, product, 6)


def _hard_sigmoid(node: fx.Node, given: Mapping[str, Any]) -> None:
    _become(node, _aten.div.Tensor, _between_0_and_6(node, given["self"]), 6)


def _between_0_and_6(node: fx.Node, read: fx.Node) -> fx.Node:
    value = node.meta["val"]
    above = _before(node, value, _aten.add.Tensor, read, 3)
    above = _before(node, value, _aten.clamp.default, above, 0)
    return _before(node, value, _aten.clamp.default, above, None, 6)


_IN_ORDER = {"memory_format": torch.contiguous_format}
_WRITERS: dict[str, Callable[[fx.Node, Mapping[str, Any]], None]] = {
    "adaptive_avg_pool2d.default": _adaptive_pool,
    "batch_norm.default": _batch_norm,
    "chunk.default": _split,
    "contiguous.default": _copied,
    "conv2d.default": _convolution,
    "dropout.default": _dropout,
    "flatten.using_ints": _reshape,
    "hardsigmoid.default": _hard_sigmoid,
    "hardswish.default": _hard_swish,
    "linear.default": _linear,
    "max_pool2d.default": _max_pool,
    "relu6.default": _relu6,
    "reshape.default": _reshape,
    "silu.default": _silu,
    "split.Tensor": _split,
    "transpose.int": _transpose,
}
