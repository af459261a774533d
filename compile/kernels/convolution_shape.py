"""What a convolution kernel computes: its shape and types, and what its forms need to know."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from shuffledeploy.compiler.ir.attributes import WORDS
from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.ir.memory_layout import FLOAT, INT8
from shuffledeploy.compiler.kernels.blocks import EpilogueStep
from shuffledeploy.compiler.kernels.int8_products import FOUR, PAIRS_OF_WORD, words_of
from shuffledeploy.compiler.kernels.int8_sums import AS_WHOLE_NUMBERS, Int8Sums
from shuffledeploy.compiler.kernels.pixel_order import AS_THEY_LIE, PixelOrder
from shuffledeploy.compiler.kernels.sliding_window import output_extent


@dataclasses.dataclass(frozen=True)
class Convolution:
    """What one convolution kernel computes; activations are NHWC with N = 1.

    Attributes
    ----------
    height, width : int
        Of the input.
    channels, stored_channels : int
        Channels that are read, and those that a pixel has in memory (of one plane).
    groups, group_outputs : int
        Groups and output channels in each.
    kernel, stride, padding, dilation : tuple of int
        Height and width; padding is top, left, bottom, right.
    run : int
        Channels that a group reads in one contiguous piece; equals ``channels / groups`` without
        a shuffle. ``0`` where the channels come from a table.
    scattered : bool
        Whether a table says where each output channel is written.
    channels_first : bool
        Whether the input is NCHW (the network's own input).
    lanes : int
        Elements in a vector of the target; output channels are padded to a multiple of it.
    epilogue : tuple of EpilogueStep
        What follows, in order.
    planes : int
        Images one after another (the N of NHWC, of input and output), each with its share of the
        groups.
    reads_all : bool
        Whether groups are parts of one dense layer's outputs: each reads all channels.
    dtype : str
        Of activations and weights, and of sums. Of int8 channels are read in words of four, sums
        are int32, and the epilogue is float32, from the sums times a scale of each output on.
    outside : int
        Which int8 stands for zero in the input, and so for what lies outside of the image.
    sums : Int8Sums
        How sums of int8 are read.
    in_pairs : bool
        Whether each word of int8 is multiplied as two pairs.
    written : str
        Type of the output, which the epilogue's last step gives; empty where it is `dtype`, or
        float32 of int8.
    block : int
        Channels that are summed up in `dtype` before they go into a sum of float32; 0 where sums
        are of `dtype`. Only of linear layers.
    pixels : PixelOrder
        Where the input's pixels stand in memory.
    """

    height: int
    width: int
    channels: int
    stored_channels: int
    groups: int
    group_outputs: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    run: int
    scattered: bool
    channels_first: bool
    lanes: int
    epilogue: tuple[EpilogueStep, ...]
    planes: int = 1
    reads_all: bool = False
    dtype: str = "float32"
    block: int = 0
    written: str = ""
    outside: int = 0
    sums: Int8Sums = AS_WHOLE_NUMBERS
    in_pairs: bool = False
    pixels: PixelOrder = AS_THEY_LIE

    @property
    def in_words(self) -> bool:
        """Whether channels are read in words of four."""
        return self.dtype == INT8

    @property
    def computed(self) -> str:
        """Type of the epilogue's numbers."""
        return FLOAT if self.in_words else self.dtype

    @property
    def depth(self) -> int:
        """What a sum takes of each pixel: channels of a group, or words of them."""
        return words_of(self.group_inputs) if self.in_words else self.group_inputs

    @property
    def parts_of_word(self) -> int:
        """Parts that a word of int8 is multiplied in."""
        return PAIRS_OF_WORD if self.in_pairs else 1

    @property
    def group_inputs(self) -> int:
        """Input channels of each group."""
        return self.channels if self.reads_all else self.channels // self.groups

    @property
    def output_height(self) -> int:
        """Rows of the output."""
        return output_extent(self.height, self, 0)

    @property
    def output_width(self) -> int:
        """Columns of the output."""
        return output_extent(self.width, self, 1)

    @property
    def padded_outputs(self) -> int:
        """Output channels of a group, rounded up to whole vectors."""
        return math.ceil(self.group_outputs / self.lanes) * self.lanes

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of the layer, without the padding of channels."""
        pixels = self.output_height * self.output_width
        taps = self.kernel[0] * self.kernel[1]
        return pixels * self.groups * self.group_outputs * self.group_inputs * taps


def attributes(conv: Convolution) -> dict[str, int]:
    """List what the forms of the kernel need to know beside its code.

    Returns
    -------
    dict
        ``run`` is 0 where channels of the input do not lie together; ``one_row`` tells whether the
        pixels that are read follow each other in memory from row to row.
    """
    reads_rows = conv.kernel == (1, 1) == conv.stride and not any(conv.padding)
    reads_rows = reads_rows and conv.pixels == AS_THEY_LIE
    blocks = {"block": conv.block} if conv.block else {}
    if conv.in_words:
        blocks[WORDS] = conv.parts_of_word
    run = 0 if conv.channels_first else conv.run
    if conv.in_words:
        # The last word of others starts earlier than its place.
        run = 0 if run % FOUR else run // FOUR
    return blocks | {
        "multiply_adds": conv.multiply_adds,
        "lanes": conv.lanes,
        "run": run,
        "columns": conv.output_width,
        "one_row": int(reads_rows),
    }


def contiguous_run(order: Array, groups: int) -> int:
    """Length of the equal runs in which every group reads its channels, ``0`` where there are none.

    A shuffle of g groups of n channels, read by g groups, gives runs of n / g where g divides n:
    group ``q`` reads ``i * n + q * run + t`` for ``i < g``, ``t < run``.
    """
    channels = len(order)
    depth = channels // groups
    for run in range(depth, 0, -1):
        if depth % run:
            continue
        index = np.arange(depth)
        pitch = channels // (depth // run)
        base = (index // run) * pitch + index % run
        expected = base[None, :] + np.arange(groups)[:, None] * run
        if np.array_equal(order.reshape(groups, depth), expected):
            return run
    return 0


def bias_shape(conv: Convolution) -> tuple[int, int]:
    """Shape of the bias that the sums start from: padded as the weights are."""
    return (conv.groups, conv.padded_outputs)


def output_type(conv: Convolution) -> tuple[int, int, int, int]:
    """Shape of the kernel's output, NHWC."""
    outputs = conv.groups // conv.planes * conv.group_outputs
    return (conv.planes, conv.output_height, conv.output_width, outputs)
