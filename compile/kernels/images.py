"""Kernels of one image, run for each image of a batch.

Before::

    out[0, y, c] = x[0, y, c]

After::

    for image in range(8): out[image, y, c] = x[image, y, c]

A batch of any size has the kernels, the keys and the records of one image. What is given to a
kernel but is no tensor of an image (weights, tables) is read for all images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tvm
from tvm import tirx
from tvm_ffi import structural_map

from shuffledeploy.compiler.ir.attributes import IMAGES, OF_IMAGES, attribute
from shuffledeploy.compiler.ir.tir import with_parameters, with_root, with_values

# Where an image's own first index goes in that of all images, or comes from.
_Place = Callable[[Any, int], Any]


def images_of(function: Any) -> int:
    """Count the images that a kernel computes one after another."""
    return int(attribute(function, IMAGES) or 1)


def multiply_adds_of(function: Any) -> int:
    """Count the multiply-adds of one call of a kernel, all of its images together."""
    return int(attribute(function, "multiply_adds") or 0) * images_of(function)


def tensors_of_images(function: Any) -> tuple[int, ...]:
    """List the parameters that have another part for each image; none where there is but one."""
    return tuple(int(place) for place in attribute(function, OF_IMAGES) or ())


def over_images(function: tirx.PrimFunc, images: int, tensors: Sequence[int]) -> tirx.PrimFunc:
    """Let a kernel of one image compute several.

    Parameters
    ----------
    function : tirx.PrimFunc
        The kernel, scheduled or not.
    images : int
        How many; a kernel of one stays as it is.
    tensors : sequence of int
        Which of its parameters are tensors of an image.
    """
    if images == 1:
        return function
    image = tirx.Var("image", "int32")

    def place(first: Any, extent: int) -> Any:
        return image if extent == 1 else tirx.Add(tirx.Mul(image, tirx.const(extent)), first)

    root = function.body.block
    parameters, body = _moved(function.params, root.body, tensors, images, place)
    loop = tirx.For(image, 0, images, tirx.ForKind.SERIAL, body)
    changed = with_parameters(
        function, parameters, with_root(function.body, loop, root.alloc_buffers)
    )
    return changed.with_attr({IMAGES: images, OF_IMAGES: list(tensors)})


def one_image(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Give back the kernel of one image, as :func:`over_images` was given it."""
    if images_of(function) == 1:
        return function

    def place(first: Any, extent: int) -> Any:
        return tirx.const(0) if extent == 1 else first.b

    root = function.body.block
    parameters, body = _moved(
        function.params, root.body.body, tensors_of_images(function), images_of(function), place,
        gather=False,
    )  # fmt: skip
    changed = with_parameters(
        function, parameters, with_root(function.body, body, root.alloc_buffers)
    )
    return changed.without_attr(IMAGES).without_attr(OF_IMAGES)


def for_each_image(
    function: tirx.PrimFunc, schedule: Callable[[tirx.PrimFunc], tirx.PrimFunc]
) -> tirx.PrimFunc:
    """Schedule a kernel by scheduling what it does for one image."""
    done = schedule(one_image(function))
    return over_images(done, images_of(function), tensors_of_images(function))


def body_of_first(function: tirx.PrimFunc) -> Any:
    """Write the body of a scheduled kernel for the first of its images alone."""
    if images_of(function) == 1:
        return function.body
    root = function.body.block
    body = with_values(root.body.body, {root.body.loop_var: tirx.const(0)})
    return with_root(function.body, body, root.alloc_buffers)


def _moved(
    parameters: Sequence[Any], body: Any, tensors: Sequence[int], images: int, place: _Place,
    *, gather: bool = True,
) -> tuple[list[Any], Any]:  # fmt: skip
    """Give tensors of images another first extent, and put what is read and written there."""
    changed = list(parameters)
    extents: list[tuple[Any, Any, int]] = []
    for number in tensors:
        old = parameters[number]
        first, *others = (int(extent) for extent in old.shape)
        own = first if gather else first // images
        shape = (images * first if gather else own, *others)
        changed[number] = tirx.decl_buffer(shape, str(old.dtype), str(old.name))
        extents.append((old, changed[number], own))

    def found(buffer: Any) -> tuple[Any, int] | None:
        return next(((new, own) for old, new, own in extents if buffer.same_as(old)), None)

    def load(node: Any) -> Any:
        if (to := found(node.source)) is None:
            return node
        first, *others = node.indices
        return tirx.BufferLoad(to[0], [place(first, to[1]), *others])

    def store(node: Any) -> Any:
        if (to := found(node.buffer)) is None:
            return node
        first, *others = node.indices
        return tirx.BufferStore(to[0], node.value, [place(first, to[1]), *others])

    def region(node: Any) -> Any:
        if (to := found(node.source)) is None:
            return node
        first, *others = node.region
        start = tvm.ir.Range.from_min_extent(place(first.min, to[1]), first.extent)
        return tirx.BufferRegion(to[0], [start, *others])

    for kind, change in (
        (tvm.ir.TensorLoad, load), (tirx.BufferStore, store), (tvm.ir.TensorRegion, region),
    ):  # fmt: skip
        body = structural_map(body, (kind, change))
    return changed, body
