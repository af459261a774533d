"""The verdict on a device's answers."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest
from tiny import lowered, tiny_bundle

from shuffledeploy.deploy.runtime.execution import open_network
from shuffledeploy.deploy.runtime.parity import (
    COARSE,
    GRAPH,
    check_parity,
    compare_outputs,
    first_wrong_kernel,
)
from shuffledeploy.model.errors import Failure


def test_a_right_library_passes_on_every_input() -> None:
    bundle = tiny_bundle()
    with open_network(bundle, "local") as network:
        parity = check_parity(network, bundle)
        written = list(network.intermediates(bundle.reference_inputs()[0]))
    assert parity.passed
    assert parity.first_wrong_kernel is None
    assert (parity.cases, parity.top1_agreement, parity.top5_agreement) == (5, 1.0, 1.0)
    assert 0 <= parity.max_abs_error < 1e-5
    assert len(written) == len(bundle.manifest.kernel_order)


def test_a_wrong_kernel_is_named() -> None:
    bundle = tiny_bundle(broken=True)
    with open_network(bundle, "local") as network:
        parity = check_parity(network, bundle)
    name = lowered("host").calls[1]
    assert not parity.passed
    assert parity.first_wrong_kernel == f"{name} (call 2 of {len(bundle.manifest.kernel_order)})"
    with pytest.raises(Failure, match=name):
        parity.require("local")


def test_right_kernels_leave_the_passes_or_the_precision_to_blame() -> None:
    bundle = tiny_bundle()
    eight = msgspec.structs.replace(bundle.manifest, precision="int8", tolerance=0.3)
    inputs = bundle.reference_inputs()[0]
    with open_network(bundle, "local") as network:
        assert first_wrong_kernel(network, bundle, inputs) == GRAPH
        coarse = dataclasses.replace(bundle, manifest=eight)
        assert first_wrong_kernel(network, coarse, inputs) == COARSE


@pytest.mark.parametrize(
    ("actual", "expected", "within"),
    [
        ([1.0, 2.0], [1.0, 2.00009], True),
        ([1.0, 2.0], [1.0, 2.001], False),
        # Larger logits may be off by as much more.
        ([1.0, 200.0], [1.0, 200.001], True),
        ([1.0, 200.0], [1.0, 200.1], False),
        ([np.nan, 2.0], [1.0, 2.0], False),
        ([1.0, 2.0], [np.nan, 2.0], False),
        ([np.nan, 2.0], [np.nan, 2.0], False),
        ([np.inf, 2.0], [np.inf, 2.0], False),
        # What is not finite excuses nothing.
        ([5.0, 2.0], [np.inf, 2.0], False),
    ],
)
def test_tolerance_follows_magnitude_and_nothing_excuses_nan(
    actual: list[float], expected: list[float], within: bool
) -> None:
    case = compare_outputs([np.float32([actual])], [np.float32([expected])], 1e-4)
    assert case.within is within


def test_a_second_output_counts_and_shapes_must_agree() -> None:
    one, other = np.zeros((1, 4), np.float32), np.ones((1, 4), np.float32)
    assert not compare_outputs([one, one], [one, other], 1e-4).within
    with pytest.raises(Failure, match="shapes"):
        compare_outputs([one], [one[0]], 1e-4)


def test_agreement_is_of_classes() -> None:
    logits = np.arange(10, dtype=np.float32)[np.newaxis]
    swapped = logits.copy()
    swapped[0, [8, 9]] = swapped[0, [9, 8]]
    case = compare_outputs([swapped], [logits], 1e-4)
    assert (case.top1, case.top5) == (False, True)


def test_numbers_that_are_not_finite_are_null_in_json() -> None:
    bundle = tiny_bundle()
    with open_network(bundle, "local") as network:
        parity = check_parity(network, bundle)
    import dataclasses

    fields = dataclasses.replace(parity, max_abs_error=float("nan")).to_json()
    assert fields["max_abs_error"] is None
    assert fields["passed"] is True
