"""Networks in int8 on emulated cores with dot products, refused where they are missing."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from shuffled_classifier import Classifier

import shuffledeploy
from shuffledeploy.compiler.bundle.folder import Bundle, sample
from shuffledeploy.deploy.presentation.layer_report import advice
from shuffledeploy.deploy.runtime.device_fit import fitting_device
from shuffledeploy.deploy.runtime.execution import open_network
from shuffledeploy.deploy.runtime.latency import count_instructions
from shuffledeploy.deploy.runtime.layer_parity import check_layers
from shuffledeploy.deploy.runtime.parity import check_parity
from shuffledeploy.deploy.runtime.standalone_network import open_standalone
from shuffledeploy.model.errors import UsageError

_FOLDER = tempfile.TemporaryDirectory(prefix="int8-bundles.")


@functools.cache
def classifier(core: str, precision: str) -> Bundle:
    """Compile the network, calibrated with inputs like those of its proof."""
    folder = Path(_FOLDER.name)
    drawn = np.random.default_rng(9).normal(size=(16, 3, 64, 48)).astype(np.float32)
    np.savez(folder / "inputs.npz", drawn)
    in_int8 = precision == "int8"
    return shuffledeploy.compile(
        Classifier().eval(), (torch.zeros(1, 3, 64, 48),), core, name="eight",
        output=folder / f"{core}-{precision}", precision=precision,
        standalone="eight" if in_int8 and core == "cortex-a76" else None,
        calibrate=folder / "inputs.npz" if in_int8 else None,
    )  # fmt: skip


def test_a_network_proves_itself_on_inputs_that_it_learned_from(tmp_path: Path) -> None:
    """Of noise, which is far outside of these ranges, int8 answers nothing like PyTorch."""
    dark = 0.02 * np.random.default_rng(9).random((16, 3, 64, 48), np.float32) - 0.4
    np.savez(tmp_path / "inputs.npz", dark)
    bundle = shuffledeploy.compile(
        Classifier().eval(), (torch.zeros(1, 3, 64, 48),), "host", name="dark",
        output=tmp_path / "dark", precision="int8", calibrate=tmp_path / "inputs.npz",
    )  # fmt: skip
    assert (bundle.manifest.cases, bundle.manifest.seeds) == (5, ())
    assert len(bundle.reference_outputs()) == 5
    for (stored,), given in zip(bundle.reference_inputs(), dark, strict=False):
        np.testing.assert_array_equal(stored, given[None])
    parity = shuffledeploy.check_parity(bundle)
    assert parity.passed
    assert parity.cases == 5


@pytest.mark.emulated
@pytest.mark.parametrize("core", ["cortex-a76", "cortex-a55"])
def test_answers_on_cores_with_dot_products_are_near_pytorchs(core: str, board_built: None) -> None:
    bundle = classifier(core, "int8")
    with open_network(bundle) as network:
        parity = check_parity(network, bundle)
        layers = check_layers(network, bundle)
        inputs = bundle.reference_inputs()[0]
        written = [np.array(values) for values in network.intermediates(inputs)]
    assert parity.passed
    # Float32 would have errors a thousand times smaller; a wrong layer leaves 4.
    assert 1e-3 < parity.max_rel_error
    assert "tolerance 0.3 of the spread (int8)" in parity.verdict
    pairs = list(zip(written, bundle.intermediate_samples(), strict=True))
    agree = [
        (sample(actual) == expected).mean() for actual, expected in pairs if actual.dtype == np.int8
    ]
    # This machine's code has no dot products: sums are the same, but where a float32 is rounded.
    assert len(agree) >= 6
    assert min(agree) > 0.99
    told = {layer.name: layer for layer in layers.layers}
    assert {"compress", "depthwise", "expand", "classifier"} <= set(told)
    assert all(15 < layer.signal_to_noise < 70 for name, layer in told.items() if name != "stem")
    assert all(layer.saturated < 0.05 for layer in layers.layers)
    assert advice(told["expand"], layers)


@pytest.mark.emulated
def test_the_network_without_a_runtime_has_the_same_bits_in_int8(board_built: None) -> None:
    bundle = classifier("cortex-a76", "int8")
    inputs = bundle.reference_inputs()[1]
    with open_network(bundle) as network, open_standalone(bundle) as alone:
        np.testing.assert_array_equal(alone.run(inputs)[0], network.run(inputs)[0])


@pytest.mark.emulated
def test_int8_takes_fewer_instructions_and_less_memory(board_built: None) -> None:
    eight, plain = (classifier("cortex-a76", precision) for precision in ("int8", "float32"))
    counts = []
    for bundle in (eight, plain):
        with open_network(bundle) as network:
            counts.append(count_instructions(network).total)
    assert counts[0] < 0.95 * counts[1]
    assert eight.manifest.constant_bytes < 0.6 * plain.manifest.constant_bytes
    elements = {kernel.element for kernel in eight.manifest.kernels}
    assert elements == {"int8", "float32"}


def test_a_bundle_of_int8_is_refused_where_a_core_has_no_dot_products() -> None:
    manifest = classifier("cortex-a76", "int8").manifest
    assert manifest.precision == "int8"
    with pytest.raises(UsageError, match=r"emulated:cortex-a72 lacks .*asimddp"):
        fitting_device(manifest, "emulated:cortex-a72")
