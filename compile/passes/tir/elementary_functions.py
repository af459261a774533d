"""Exponentials and their relatives are computed by vectors, of multiply-adds.

Before::

    out[0:16] = x[0:16] * sigmoid(x[0:16])

After::

    out[0:16] = x[0:16] * (let n = x[0:16] * -1.4427 + magic in ... 1 / (1 + e))

LLVM has no vectors of `exp`, `tanh` and `erf`: it would call a function of libm for each lane. The
largest errors over all of float32, in units in the last place, are 1 (`exp`), 2 (`tanh`, `erf`,
`exp2` from 2**-125.5 on) and 3 (`sigmoid`); infinities and NaN give what PyTorch gives. Vectors
that are wider than the target's are taken apart, so that what stands between is in registers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tvm
from tvm import tirx
from tvm_ffi import structural_map

from shuffledeploy.compiler.ir.attributes import LANES, attribute
from shuffledeploy.compiler.ir.tir import picked
from shuffledeploy.compiler.ir.tvm_edges import let_vectorize

LOG2_E = 1.4426950408889634
# ln 2 in two parts: the product of the first with a whole number below 512 is exact.
LN_2 = (0.693359375, -2.12194440e-4)
# e**r on half of ln 2 around zero is 1 + r + r**2 times this polynomial, the highest power first
# (S. Moshier, Cephes, expf).
EXPONENTIAL = (
    1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1,
    5.0000001201e-1,
)  # fmt: skip
# 2**r on half a unit around zero, as a polynomial (Cephes, exp2f).
POWER_OF_TWO = (
    1.535336188319500e-4, 1.339887440266574e-3, 9.618437357674640e-3, 5.550332471162809e-2,
    2.402264791363012e-1, 6.931472028550421e-1, 1.0,
)  # fmt: skip
# Beyond these 2**x is infinite, or taken for zero.
HIGHEST_POWER, LOWEST_POWER = 128.0, -126.0
# tanh(x) below 0.625 is x + x**3 times this polynomial of x**2 (Cephes, tanhf).
TANH = (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)
TANH_BELOW = 0.625
# erf(x) below 0.921875 is x + x times the first polynomial of x**2; above it is 1 - exp of the
# second of x, less x (N. Juffa).
ERF_BELOW = 0.921875
ERF = (
    -5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1, 1.28379166e-1,
)  # fmt: skip
ERF_TAIL = (
    -1.72853470e-5, 3.83197126e-4, -3.88396438e-3, 2.42546219e-2, -1.06777877e-1, -6.34846687e-1,
    -1.28717512e-1,
)  # fmt: skip
# Added to a number below 2**22 it leaves the nearest whole number in the lowest bits.
ROUNDING = 12582912.0
ROUNDING_BITS = 0x4B400000
MANTISSA_BITS = 23
EXPONENT_BIAS = 127
# Beyond these exp is infinite, or zero.
HIGHEST, LOWEST = 89.0, -104.0
# Between these a power of two is a normal number.
HIGHEST_NORMAL, LOWEST_NORMAL = 88.0, -87.0

_Body = Callable[[Any], Any]


def compute_functions(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Write out the elementary functions that a lowered function calls."""
    lanes = int(attribute(function, LANES) or 0)

    def write(call: Any) -> Any:
        known = _FUNCTIONS.get(getattr(call.op, "name", ""))
        if known is None or not str(call.ty.dtype).startswith("float32"):
            return call
        (value,) = call.args
        width = _lanes(value)
        if not lanes or width <= lanes or width % lanes:
            return known(value)
        return _let(value, lambda whole: _by_parts(whole, width, lanes, known))

    return function.with_body(structural_map(function.body, (tvm.ir.Call, write)))


def _by_parts(value: Any, width: int, lanes: int, compute: _Body) -> Any:
    parts = [compute(picked([value], range(i, i + lanes))) for i in range(0, width, lanes)]
    return picked(parts, range(width))


def _exponential(value: Any) -> Any:
    """Write e to the power of a value, for all values."""

    def scaled(power: Any, biased: Any) -> Any:
        # In two steps, for 2**n may be beyond float32 where the result is not.
        n = biased - _like(biased, ROUNDING_BITS + EXPONENT_BIAS)
        return _let(
            tirx.shift_right(n, _like(n, 1)),
            lambda half: power * _power_of_two(half) * _power_of_two(n - half),
        )

    return _power(value, (LOWEST, HIGHEST), scaled)


def _normal_exponential(value: Any) -> Any:
    """Write the same, of which nothing comes below the smallest or beyond the largest power."""

    def scaled(power: Any, biased: Any) -> Any:
        # The shift drops all of `ROUNDING`: n with its bias is left, as an exponent.
        exponent = tirx.shift_left(biased, _like(biased, MANTISSA_BITS))
        return power * _as_float(exponent)

    return _power(value, (LOWEST_NORMAL, HIGHEST_NORMAL), scaled)


def _binary_power(value: Any) -> Any:
    """Write two to the power of a value; what would be below 2**-125.5 is zero.

    So it is for a softmax, for which such a share is none: x86 takes a hundred times as long for
    products that are too small to be normal numbers.
    """
    rounding = ROUNDING - LOWEST_POWER

    def with_rounded(x: Any, rounded: Any) -> Any:
        # The exponent of half the result: that of the lowest power is zero's.
        half = _as_float(tirx.shift_left(_as_int(rounded), _like(_as_int(rounded), MANTISSA_BITS)))
        twice = [2 * coefficient for coefficient in POWER_OF_TWO]
        rest = x - (rounded - _like(rounded, rounding))
        return _let(rest, lambda r: _polynomial(twice, r) * half)

    return _within(
        value,
        (LOWEST_POWER, HIGHEST_POWER),
        lambda x: _let(x + _like(x, rounding), lambda rounded: with_rounded(x, rounded)),
    )


def _power(value: Any, bounds: tuple[float, float], scaled: Callable[[Any, Any], Any]) -> Any:
    """Write ``scaled(e**r, bits)`` of a value ``n ln 2 + r``; the last of the bits are n + 127."""
    rounding = ROUNDING + EXPONENT_BIAS

    def with_rounded(x: Any, rounded: Any) -> Any:
        n = rounded - _like(rounded, rounding)
        rest = x - n * _like(x, LN_2[0]) - n * _like(x, LN_2[1])
        return _let(
            rest,
            lambda r: scaled(
                _polynomial(EXPONENTIAL, r) * (r * r) + (r + _like(r, 1.0)), _as_int(rounded)
            ),
        )

    return _within(
        value,
        bounds,
        lambda x: _let(
            x * _like(x, LOG2_E) + _like(x, rounding), lambda rounded: with_rounded(x, rounded)
        ),
    )


def _sigmoid(value: Any) -> Any:
    one = _like(value, 1.0)
    return one / (one + _normal_exponential(_like(value, 0.0) - value))


def _tanh(value: Any) -> Any:
    def far(size: Any) -> Any:
        one, two = _like(size, 1.0), _like(size, 2.0)
        return one - two / (one + _normal_exponential(size + size))

    def near(x: Any, square: Any) -> Any:
        return x + x * square * _polynomial(TANH, square)

    return _odd(value, TANH_BELOW, near, far)


def _erf(value: Any) -> Any:
    def far(size: Any) -> Any:
        exponent = _polynomial(ERF_TAIL, size) * size - size
        return _like(size, 1.0) - _normal_exponential(exponent)

    def near(x: Any, square: Any) -> Any:
        return x + x * _polynomial(ERF, square)

    return _odd(value, ERF_BELOW, near, far)


def _odd(value: Any, bound: float, near: Callable[[Any, Any], Any], far: _Body) -> Any:
    """Write an odd function: near zero of a value and its square, else of its size."""

    def of(x: Any, size: Any) -> Any:
        close = _let(x * x, lambda square: near(x, square))
        return tirx.Select(size < _like(x, bound), close, _with_sign(far(size), x))

    return _let(value, lambda x: _let(_absolute(x), lambda size: of(x, size)))


#: By TVM's intrinsic: what stands for a call of it.
_FUNCTIONS: dict[str, _Body] = {
    "tirx.exp": _exponential,
    "tirx.exp2": _binary_power,
    "tirx.sigmoid": _sigmoid,
    "tirx.tanh": _tanh,
    "tirx.erf": _erf,
}


let_vectorize("tirx.erf")


def _polynomial(coefficients: Sequence[float], x: Any) -> Any:
    """Write a polynomial, the highest power's coefficient first."""
    first, *others = coefficients
    total = _like(x, first)
    for coefficient in others:
        total = total * x + _like(x, coefficient)
    return total


def _let(value: Any, body: _Body) -> Any:
    variable = tirx.Var("of", value.ty)
    return tirx.Let(variable, value, body(variable))


def _lanes(value: Any) -> int:
    return int(tvm.DataType(str(value.ty.dtype)).lanes)


def _like(value: Any, number: float) -> Any:
    """Write a number for each lane of a value, in its type."""
    kind, lanes = str(value.ty.dtype).split("x")[0], _lanes(value)
    one = tirx.const(number, kind)
    return one if lanes == 1 else tirx.Broadcast(one, lanes)


def _as(kind: str, value: Any) -> Any:
    lanes = _lanes(value)
    return tirx.reinterpret(kind if lanes == 1 else f"{kind}x{lanes}", value)


def _as_int(value: Any) -> Any:
    return _as("int32", value)


def _as_float(value: Any) -> Any:
    return _as("float32", value)


def _power_of_two(n: Any) -> Any:
    bits = tirx.shift_left(n + _like(n, EXPONENT_BIAS), _like(n, MANTISSA_BITS))
    return _as_float(bits)


def _within(value: Any, bounds: tuple[float, float], body: _Body) -> Any:
    """Hand over a value that is at least one bound and at most the other; NaN stays NaN."""
    low, high = (_like(value, bound) for bound in bounds)
    # A comparison with NaN fails.
    return _let(
        value,
        lambda x: _let(
            tirx.Select(x < low, low, x),
            lambda y: _let(tirx.Select(y > high, high, y), body),
        ),
    )


def _absolute(value: Any) -> Any:
    return _as_float(tirx.bitwise_and(_as_int(value), _like(_as_int(value), 0x7FFFFFFF)))


def _with_sign(size: Any, value: Any) -> Any:
    sign = tirx.bitwise_and(_as_int(value), _like(_as_int(value), -0x80000000))
    return _as_float(tirx.bitwise_or(_as_int(size), sign))
