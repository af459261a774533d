"""What counts over RPC are told by."""

from __future__ import annotations

import msgspec
import pytest
from tiny import tiny_bundle

from shuffledeploy.compiler.bundle.manifest import Manifest
from shuffledeploy.deploy.estimate.instruction_counts import kernel_behind


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    found = tiny_bundle().manifest
    name = found.kernels[0].name
    return msgspec.structs.replace(found, symbols={f"{name}_elsewhere": name, "rows_7": name})


@pytest.mark.smoke
@pytest.mark.parametrize(
    "symbol",
    ["{}", "__tvm_ffi_{}", "{}_compute_", "{}_compute_.12", "{}_elsewhere", "rows_7",
     "__tvm_ffi_{}_elsewhere", "{}_elsewhere_compute_"],
)  # fmt: skip
def test_what_a_kernel_became_is_counted_as_the_kernel(symbol: str, manifest: Manifest) -> None:
    name = manifest.kernels[0].name
    assert kernel_behind(symbol.format(name), manifest) == name
    assert kernel_behind("vm.builtin.null_value", manifest) == "vm.builtin.null_value"
