"""Facts about functions travel as their attributes; these are all of them.

An attribute that a kernel has before it is scheduled is part of its code, and so of the key of its
tuning records. What the pipeline learns later is set on scheduled functions only.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx

# Of modules.
#: What tensors in half precision hold of what they stand for: a power of two.
HALF_SCALE = "shuffledeploy.half_scale"
#: What one stands for in each tensor that is held in int8, in the order of `int8_tensors`.
INT8_SCALES = "shuffledeploy.int8_scales"
#: Which int8 stands for zero in each of them: 0, or -128 where no number is negative.
INT8_ZEROS = "shuffledeploy.int8_zeros"
#: The mean of each channel of these tensors, one tensor's after another's.
INT8_MEANS = "shuffledeploy.int8_means"
#: Places in `kept_layers.layer_chains` of the layers that stay float32 in another precision.
KEPT_FLOAT32 = "shuffledeploy.kept_float32"

# Of unscheduled kernels.
KIND = "kernel"
CONVOLUTION = "convolution"
WINDOW = "window"
#: Kind of concatenations.
JOINED = "joined"
#: Kind of what is applied to each element of a feature map.
ELEMENTWISE = "elementwise"
#: Kind of what is done to the numbers of a layer before and after its products.
TRANSFORM = "transform"
#: Kind of attentions: two products and the softmax between them.
ATTENTION = "attention"
#: Kind of products of two tensors that the network computes.
PRODUCT = "product"
#: Kind of layer norms.
NORM = "norm"
#: Kind of softmaxes that stand alone.
SOFTMAX = "softmax"
#: Kinds of kernels that have buffers beside their tiles.
BUFFERED = (ATTENTION, NORM, PRODUCT, SOFTMAX)
#: Floats in the vectors that a kernel computes with.
LANES = "lanes"
#: Of a kernel that reads int8 in words of four and adds up their products: the parts that a word is
#: multiplied in. It is 1 where a word is multiplied as a whole, and 2 where it is two pairs.
WORDS = "words"
#: Images that a kernel computes one after another, and which of its parameters are tensors of them.
IMAGES = "images"
OF_IMAGES = "of_images"

#: Of kernels by TVM's own rules: the operators that each came from.
OPERATORS = "shuffledeploy.operators"

# Of scheduled kernels.
#: Annotation of a block, and attribute of a function: pixels share vectors.
SHARED = "shared_vectors"
#: A function that fetches weights: its sums have to stand where no fetch can be thought to read.
FETCHES = "shuffledeploy.fetches"
#: A function that only other kernels call.
INTERNAL = "shuffledeploy.internal"
#: The kernel, by name, whose work a function does, in another place or on some of its rows.
OF_KERNEL = "shuffledeploy.of_kernel"
#: Of a function that several threads compute: the function, by name, that computes a part of it.
PART = "shuffledeploy.part"
#: Of such a function: how many parts there are; one where a single thread computes all.
PARTS = "shuffledeploy.parts"
#: The kernels, by name and in order, that a function computes strip by strip.
STRIPS = "shuffledeploy.strips"
#: Of the entry function: the concatenations that are not called, one name for each call.
JOINED_IN_PLACE = "shuffledeploy.joined_in_place"
#: Of the function that is a whole network: bytes of the workspace that it needs.
WORKSPACE = "shuffledeploy.workspace"
#: Of the function that is a whole network: the functions that it calls, one name for each call.
CALLS = "shuffledeploy.calls"


def attribute(function: Any, name: str) -> Any:
    """Give an attribute of a function; ``None`` where it has none of this name."""
    return function.attrs[name] if function.attrs and name in function.attrs else None


def kind_of(function: Any) -> str:
    """Kind of a kernel of ours; ``""`` for whatever else."""
    kind = attribute(function, KIND) if isinstance(function, tirx.PrimFunc) else None
    return "" if kind is None else str(kind)


def kernel_of(function: Any, name: str) -> str:
    """Name of the kernel whose work a function does: `name`, its own, unless it is marked."""
    marked = attribute(function, OF_KERNEL)
    return name if marked is None else str(marked)
