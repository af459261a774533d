"""What PyTorch computes in float32 where a kernel of the compiled network writes a tensor.

Passes fuse operators, put channels last, in another order, and cast: nothing in a kernel's name
tells which layer it computes. Its numbers do. The tensors that PyTorch's calls give are compared
with what each unscheduled kernel writes, channel by channel, until the one is found that the kernel
stands for, and the order of its channels. Kernels that write what no call of the program gives (the
planes of Winograd's way) stand for none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from torch import fx

from shuffledeploy.compiler.bundle.layer_samples import layer_rows, layer_sample
from shuffledeploy.compiler.bundle.manifest_entries import Layer
from shuffledeploy.compiler.frontend.importing import tensor_calls
from shuffledeploy.compiler.frontend.program import Program
from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.ir.memory_layout import HALF, Held
from shuffledeploy.compiler.program_values import layer_of, tensors_of_calls
from shuffledeploy.model.printable import printable_line

#: A kernel stands for a tensor where what is between them has less than this part of its energy.
LARGEST_NOISE = 1e-2
#: The same of tensors in int8: other tensors are as far apart as 2.
LARGEST_NOISE_IN_INT8 = 0.5
#: With fewer numbers each, channels that are alike could be taken for each other.
LEAST_ROWS = 16
#: Fewer elements may be near by chance.
LEAST_ELEMENTS = 4
# Tensors whose channels have nearly the same norms as a kernel's: that many are compared whole.
_TRIED = 3
# Operators that programs know by other names than people.
_NAMES = {
    "native_batch_norm_legit_no_training": "batch_norm",
    "max_pool2d_with_indices": "max_pool2d",
    "addmm": "linear",
}
# Operators that compute nothing.
_MOVES = frozenset({
    "getitem", "view", "permute", "clone", "unsqueeze", "squeeze", "alias", "expand", "transpose",
})  # fmt: skip
# What sums up or joins, by a part of its operator's name: a layer has the name of the last of them.
_LAYERS = ("conv", "linear", "mm", "pool", "mean", "cat")


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A tensor of PyTorch's in one of the ways in which a kernel may have written it.

    Attributes
    ----------
    call : fx.Node
        What gave it.
    shape : tuple of int
        Without axes of one element.
    rows : Array
        Some of its pixels by all of its channels.
    """

    call: fx.Node
    shape: tuple[int, ...]
    rows: Array


def layers_of(
    program: Program,
    writes: Sequence[Sequence[Array]],
    inputs: list[Array],
    half_scale: float = 1.0,
    held: Sequence[Held] = (),
) -> tuple[tuple[Layer, ...], dict[str, Array]]:
    """Find the layer that each kernel call stands for, and what PyTorch computes there.

    Parameters
    ----------
    program : Program
        The network.
    writes : sequence
        What each kernel call writes, unscheduled.
    inputs : list of Array
        What for.
    half_scale : float
        What tensors in half precision hold of what they stand for.
    held : sequence of Held
        How each tensor in int8 is held, in the order of the calls that write them.

    Returns
    -------
    tuple
        The layers in the order of calls, and by ``layer_CALL`` samples of PyTorch's tensors
        (`compiler.bundle.layer_samples`).
    """
    tensors = _tensors(program, inputs)
    layers, samples = [], {}
    orders: dict[int, list[Array]] = {}
    in_int8 = iter(held)
    for place, parts in enumerate(writes):
        scale, zero = 1.0, 0
        if parts[0].dtype == np.int8:
            scale, zero = next(in_int8, Held(scale, zero))
        elif str(parts[0].dtype) == HALF:
            scale = 1 / half_scale
        elif parts[0].dtype != np.float32:
            continue
        if len(parts) != 1 or parts[0].size < LEAST_ELEMENTS:
            continue
        written = standing_for(parts[0], scale, zero)
        noise = LARGEST_NOISE_IN_INT8 if held else LARGEST_NOISE
        found = _found(written, tensors, orders, noise)
        if found is not None:
            tensor, told = found
            name, last = _layer_name(tensor.call), _operator(tensor.call)
            layers.append(Layer(place, name, last, scale, zero))
            samples[f"layer_{place}"] = layer_sample(told)
    return tuple(layers), samples


def layer_names(program: Program, computed: Sequence[Array], inputs: list[Array]) -> list[str]:
    """Name the layers of a program that tensors of float32 are computed by.

    Parameters
    ----------
    program : Program
        The network.
    computed : sequence of Array
        What kernels computed; channels may be last, and in another order than the program's.
    inputs : list of Array
        From which they were computed: what the program takes, of its shapes and types.

    Returns
    -------
    list of str
        A name for each tensor; ``""`` for one that stands for none of the program's.
    """
    tensors, orders = _tensors(program, inputs), dict[int, list[Array]]()
    names = []
    for values in computed:
        found = None
        if values.dtype == np.float32 and values.size >= LEAST_ELEMENTS:
            found = _found(values, tensors, orders, LARGEST_NOISE)
        names.append("" if found is None else _layer_name(found[0].call))
    return names


def standing_for(values: Array, scale: float, zero: int) -> Array:
    """Give in float32 what the numbers of a tensor stand for."""
    return (values.astype(np.float32) - np.float32(zero)) * np.float32(scale)


def _tensors(program: Program, inputs: list[Array]) -> list[_Tensor]:
    """List PyTorch's float32 tensors, as they are and with their channels last."""
    told = tensors_of_calls(program.core, inputs, _ways)
    return [
        _Tensor(call, shape, rows)
        for call, ways in zip(tensor_calls(program.core), told, strict=True)
        for shape, rows in ways
    ]


def _ways(values: Array) -> list[tuple[tuple[int, ...], Array]]:
    """Give shape and pixels of a tensor in each layout; none of what is not float32."""
    if values.dtype != np.float32 or values.size < LEAST_ELEMENTS:
        return []
    ways = [values] if values.ndim <= 2 else [values, np.moveaxis(values, 1, -1)]
    return [(_extents(way), layer_rows(way).copy()) for way in ways]


def _extents(values: Array) -> tuple[int, ...]:
    return tuple(extent for extent in values.shape if extent != 1)


def _found(
    values: Array, tensors: Sequence[_Tensor], orders: dict[int, list[Array]], noise: float
) -> tuple[_Tensor, Array] | None:
    """Find the program's tensor that a kernel's values are of, and what PyTorch has there.

    `orders` has the orders of channels that were found, by the number of channels; it is added to.
    """
    shape, rows = _extents(values), layer_rows(values)
    alike = _nearest(rows, (tensor for tensor in tensors if tensor.shape == shape))
    return _stands_for(rows, alike, orders.setdefault(rows.shape[1], []), noise)


def _nearest(rows: Array, tensors: Iterable[_Tensor]) -> list[_Tensor]:
    """Pick the tensors whose channels, in whichever order, have the norms that a kernel's have."""
    wanted = _norms(rows)
    by_distance = sorted(tensors, key=lambda tensor: _energy(_norms(tensor.rows) - wanted))
    return by_distance[:_TRIED]


def _norms(rows: Array) -> Array:
    return np.sort(np.linalg.norm(rows, axis=0))


def _stands_for(
    rows: Array, tensors: Sequence[_Tensor], orders: list[Array], noise: float
) -> tuple[_Tensor, Array] | None:
    """Find the tensor that a kernel wrote, and give its pixels with the kernel's channels.

    Orders of channels that were found are noted: those of one pixel alone do not tell theirs.
    """
    known = [(tensor, o) for tensor in tensors for o in (_in_order(rows), *orders)]
    found = _best(rows, known, noise)
    if found is None and len(rows) >= LEAST_ROWS:
        nearest = [(tensor, _nearest_channels(rows, tensor.rows)) for tensor in tensors]
        found = _best(rows, nearest, noise)
        if found is not None:
            orders.append(found[1])
    return None if found is None else (found[0], found[0].rows[:, found[1]])


def _in_order(rows: Array) -> Array:
    return np.arange(rows.shape[1])


def _best(
    rows: Array, tried: Sequence[tuple[_Tensor, Array]], most: float
) -> tuple[_Tensor, Array] | None:
    """Pick the tensor and the order of its channels that are nearest to what a kernel wrote."""
    noises = [_noise(rows, tensor.rows[:, order]) for tensor, order in tried]
    near = [place for place, noise in enumerate(noises) if noise < most]
    return tried[min(near, key=noises.__getitem__)] if near else None


def _nearest_channels(rows: Array, told: Array) -> Array:
    """Give for each channel of a kernel the channel of PyTorch's tensor that is nearest."""
    norms = (told**2).sum(axis=0)
    return np.argmin(norms[None, :] - 2 * rows.T @ told, axis=1)


def _noise(actual: Array, expected: Array) -> float:
    """Give the energy of the difference in parts of that of the numbers about their mean."""
    signal = _energy(expected - expected.mean())
    difference = _energy(actual - expected)
    return difference / signal if signal else float(difference > 0)


def _energy(values: Array) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.sum(values.astype(np.float64) ** 2))


def _layer_name(call: fx.Node) -> str:
    """Name the layer that a call ends: the module of what sums up or joins, and came last."""
    order = {node: place for place, node in enumerate(call.graph.nodes)}
    waiting, seen, layers = [call], set[fx.Node](), list[fx.Node]()
    while waiting:
        node = waiting.pop()
        if node in seen or node.op != "call_function":
            continue
        seen.add(node)
        if any(part in _bare(node) for part in _LAYERS):
            layers.append(node)
        else:
            waiting.extend(node.all_input_nodes)
    layer = max(layers, key=order.__getitem__, default=call)
    return printable_line(layer_of(layer)) or layer.name


def _operator(call: fx.Node) -> str:
    """Name the operator that computed a call's tensor, such as ``relu``."""
    name = _bare(call)
    if name in _MOVES and call.args and isinstance(call.args[0], fx.Node):
        return _operator(call.args[0])
    return _NAMES.get(name, name)


def _bare(call: fx.Node) -> str:
    """Name a call's own operator without namespace and overload."""
    name = str(getattr(call.target, "__name__", call.target))
    return name.split(".", maxsplit=1)[0].strip("_")[:100]
