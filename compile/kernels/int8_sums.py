"""Sums of products of int8 become int8 again: read as float32, scaled, rounded, narrowed.

A float32 between 2**23 and 2**24 counts by ones: of ``CENTRE + n`` the digits are ``CENTRE_BITS +
n``. So a sum that starts from ``CENTRE_BITS`` is a number of float32 as it stands, where it stays
within ``REACH`` of its start, and a number to which ``CENTRE`` is added is rounded, its lowest byte
the int8. A core like the Cortex-A76 adds or multiplies two vectors a cycle, and takes two cycles
for each conversion between whole numbers and float32.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from shuffledeploy.compiler.ir.memory_layout import FLOAT, INT8, INT32

#: The middle of the float32 that count by ones, and its digits as an int32.
CENTRE, CENTRE_BITS = 1.5 * 2**23, 0x4B400000
#: How far whole numbers may lie from the middle.
REACH = 2**22
#: How far they may if they are to be read from the lower half of their digits.
SHORT_REACH = 2**15
#: What an int8 that is read as float32 is more than it is, the digits of that, and by how much an
#: int8 is moved up to be added to them: between 256 and 512 float32 count by 2**-15.
READ_AT, _READ_BITS, _READ_SHIFT = 384.0, 0x43C00000, 15
_SHORT = "int16"


@dataclasses.dataclass(frozen=True)
class Int8Sums:
    """How a kernel reads its sums.

    Attributes
    ----------
    centred : bool
        Whether they start from `CENTRE_BITS`, and so are float32 as they stand.
    at_once : bool
        Whether scaling them adds `CENTRE`, too: a parameter says what each output adds.
    """

    centred: bool = False
    at_once: bool = False


#: Sums that are converted to float32 before they are scaled.
AS_WHOLE_NUMBERS = Int8Sums()


def factors_of(sums: Int8Sums, channels: int) -> tuple[Any, Any]:
    """Declare the parameters that sums are scaled by: a scale of each channel, and an offset."""
    scales = T.arg("scales", T.buffer((channels,), FLOAT))
    return scales, T.arg("offsets", T.buffer((channels,), FLOAT)) if sums.at_once else None


def at_channel(factors: tuple[Any, Any], channel: Any) -> tuple[Any, Any]:
    """Read a channel's scale, and its offset where there is one."""
    scales, offsets = factors
    return scales[channel], None if offsets is None else offsets[channel]


def scaled_sum(sums: Int8Sums, total: Any, scale: Any, offset: Any) -> Any:
    """Write a sum as a number of float32; `offset` is what is added to one scaled at once."""
    number = tirx.reinterpret(FLOAT, total) if sums.centred else tirx.Cast(FLOAT, total)
    if sums.at_once:
        return number * scale + offset
    return (number - tirx.FloatImm(FLOAT, CENTRE) if sums.centred else number) * scale


def read_number(held: Any) -> Any:
    """Write an int8 as a float32, `READ_AT` more than it is."""
    moved = tirx.shift_left(tirx.Cast(INT32, held), tirx.IntImm(INT32, _READ_SHIFT))
    return tirx.reinterpret(FLOAT, moved + tirx.IntImm(INT32, _READ_BITS))


def narrowed(rounded: Any, low: Any, high: Any) -> Any:
    """Write the int8 of a number to which `CENTRE` was added, within bounds."""
    least, most = (tirx.IntImm(INT32, CENTRE_BITS + int(bound.value)) for bound in (low, high))
    bits = tirx.reinterpret(INT32, rounded)
    return tirx.Cast(INT8, tirx.max(tirx.min(bits, most), least))


def narrowed_short(rounded: Any, low: Any, high: Any) -> Any:
    """Write the same of a number within `SHORT_REACH`: the lower half of its digits tells it."""
    least, most = (tirx.IntImm(_SHORT, int(bound.value)) for bound in (low, high))
    half = tirx.Cast(_SHORT, tirx.reinterpret(INT32, rounded))
    return tirx.Cast(INT8, tirx.max(tirx.min(half, most), least))
