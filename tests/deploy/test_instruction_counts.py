"""What counts over RPC are told by."""

from __future__ import annotations

import pytest

from deploy.emulator.instruction_counts import kernel_of


@pytest.mark.smoke
@pytest.mark.parametrize(
    "symbol",
    [
        "conv_8x8", "__tvm_ffi_conv_8x8", "conv_8x8_compute_", "conv_8x8_compute_.12",
        "conv_8x8_rows", "conv_8x8_in_place", "__tvm_ffi_conv_8x8_in_place",
        "conv_8x8_in_place_compute_",
    ],
)  # fmt: skip
def test_what_a_kernel_became_is_counted_as_the_kernel(symbol: str) -> None:
    assert kernel_of(symbol) == "conv_8x8"
