"""Networks in half precision on emulated cores that compute in it, and on others refused."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from shuffled_classifier import Classifier
from tiny import tiny_bundle

import shuffledeploy
from shuffledeploy.compiler.bundle.folder import Bundle
from shuffledeploy.compiler.bundle.precision_text import precision_text
from shuffledeploy.compiler.bundle.tolerances import allowed_error, error_unit, spread
from shuffledeploy.deploy.runtime.device_fit import check_cpu, fitting_device
from shuffledeploy.deploy.runtime.execution import open_network
from shuffledeploy.deploy.runtime.latency import count_instructions
from shuffledeploy.deploy.runtime.layer_parity import check_layers
from shuffledeploy.deploy.runtime.parity import check_parity, compare_outputs
from shuffledeploy.deploy.runtime.standalone_network import open_standalone
from shuffledeploy.model.errors import UsageError

_FOLDER = tempfile.TemporaryDirectory(prefix="half-bundles.")


@functools.cache
def classifier(core: str, precision: str) -> Bundle:
    """Compile the network, for the A76 also without a runtime."""
    return shuffledeploy.compile(
        Classifier().eval(), (torch.zeros(1, 3, 64, 48),), core, name="half",
        output=Path(_FOLDER.name) / f"{core}-{precision}", precision=precision,
        standalone="half" if core == "cortex-a76" else None,
    )  # fmt: skip


@pytest.mark.emulated
@pytest.mark.parametrize("core", ["cortex-a76", "cortex-a55"])
def test_answers_on_cores_with_half_arithmetic_are_pytorchs(core: str, board_built: None) -> None:
    bundle = classifier(core, "float16")
    with open_network(bundle) as network:
        parity = check_parity(network, bundle)
    assert parity.passed
    # A thousandth of float32's errors would mean that half precision was not at work.
    assert 1e-4 < parity.max_rel_error
    assert "of the spread (float16)" in parity.verdict


@pytest.mark.emulated
def test_layers_on_an_emulated_core_are_as_near_as_half_precision_is(board_built: None) -> None:
    bundle = classifier("cortex-a76", "float16")
    with open_network(bundle) as network:
        parity = check_layers(network, bundle)
    assert {"stem", "compress", "depthwise", "expand", "wide", "classifier"} <= {
        layer.name for layer in parity.layers
    }
    assert all(35 < layer.signal_to_noise < 90 for layer in parity.layers)
    assert parity.first_beyond is None
    assert not any(layer.saturated for layer in parity.layers)


@pytest.mark.emulated
def test_the_network_without_a_runtime_has_the_same_bits(board_built: None) -> None:
    bundle = classifier("cortex-a76", "float16")
    inputs = bundle.reference_inputs()[1]
    with open_network(bundle) as network, open_standalone(bundle) as alone:
        np.testing.assert_array_equal(alone.run(inputs)[0], network.run(inputs)[0])
        assert check_parity(alone, bundle).passed


@pytest.mark.emulated
def test_half_takes_far_fewer_instructions(board_built: None) -> None:
    counts = []
    for precision in ("float16", "float32"):
        with open_network(classifier("cortex-a76", precision)) as network:
            counts.append(count_instructions(network).total)
    assert counts[0] < 0.62 * counts[1]


def test_weights_and_memory_halve_and_the_manifest_says_what_is_half() -> None:
    half, plain = (classifier("cortex-a76", precision) for precision in ("float16", "float32"))
    assert (half.manifest.precision, plain.manifest.precision) == ("float16", "float32")
    assert half.manifest.constant_bytes < 0.56 * plain.manifest.constant_bytes
    assert half.manifest.standalone is not None and plain.manifest.standalone is not None
    assert half.manifest.standalone.workspace < 0.7 * plain.manifest.standalone.workspace
    elements = [kernel.element for kernel in half.manifest.kernels]
    assert set(elements) == {"float16", "float32"}
    assert precision_text(plain.manifest) == "float32"
    told = precision_text(half.manifest)
    assert told == f"float16 ({elements.count('float32')} of {len(elements)} kernels write float32)"
    small = msgspec.structs.replace(half.manifest, half_scale=1 / 8)
    assert precision_text(small).endswith("; tensors hold 1/8 of what they stand for")
    assert {tensor.dtype for tensor in half.manifest.inputs + half.manifest.outputs} == {"float32"}


def test_a_bundle_of_half_is_refused_where_a_core_lacks_it_before_it_is_loaded() -> None:
    manifest = classifier("cortex-a76", "float16").manifest
    with pytest.raises(UsageError, match=r"emulated:cortex-a72 lacks .*asimdhp"):
        fitting_device(manifest, "emulated:cortex-a72")
    features = frozenset({"asimd", "atomics", "asimddp"})
    with pytest.raises(UsageError, match="the phone lacks asimdhp: compile for its core"):
        check_cpu(manifest, "the phone", "aarch64", features)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UsageError, match="precision is float32, float16 or int8, not 'int4'"):
        shuffledeploy.compile(Classifier().eval(), (torch.zeros(1, 3, 64, 48),), precision="int4")


def test_errors_in_half_are_held_against_the_spread() -> None:
    logits = np.float32([[100.0, 101.0, 102.0, 103.0]])
    assert spread(logits) == pytest.approx(1.118, abs=1e-3)
    near, far = logits + np.float32([0, 0, 0, 0.05]), logits + np.float32([0, 0, 0, 0.06])
    assert compare_outputs([near], [logits], 5e-2, "float16").within
    assert not compare_outputs([far], [logits], 5e-2, "float16").within
    # The same numbers of a float32 network: held against the largest.
    assert not compare_outputs([near], [logits], 1e-4, "float32").within
    assert allowed_error(error_unit(logits, "float32"), 1e-4, "float32") == pytest.approx(0.0103)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_nothing_that_is_no_number_passes_in_half(wrong: float) -> None:
    logits = np.float32([[1.0, 2.0]])
    assert not compare_outputs([np.float32([[wrong, 2.0]])], [logits], 5e-2, "float16").within
    assert spread(np.float32([[wrong, 2.0]])) == 1.0
    # One number alone has no spread.
    assert spread(np.float32([3.0])) == 3.0


def test_bundles_of_float32_say_so() -> None:
    assert tiny_bundle().manifest.precision == "float32"
    assert tiny_bundle().manifest.half_scale == 1.0
