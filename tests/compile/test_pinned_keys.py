"""Kernel keys are hashes of unscheduled code, and 3,600 committed records hang on them.

A change of Python that changes a key here would leave records behind. Where kernels are meant to
change: ``PIN_KEYS=1 pytest tests/compile/test_pinned_keys.py`` writes the keys anew, for all
networks, and the records have to be found again.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from stages import avx512

from shuffledeploy.compiler.lowered_network import lower
from shuffledeploy.compiler.targets import find_target
from shuffledeploy.compiler.tuning.records.recorded_schedules import kernel_key
from shuffledeploy.compiler.zoo import trace_network
from shuffledeploy.model.registry import names

PINNED = Path(__file__).with_name("pinned_keys.json")
CHECKED = ["alexnet", "mobilenet-x0.25", "shufflenet-g3-x0.5", "resnext26-32x4d"]


def _keys(network: str, target: str) -> dict[str, str]:
    found = find_target(target) if target != "skylake-avx512" else avx512()
    kernels = lower(trace_network(network), found).kernels
    return {name: kernel_key(function) for name, function in kernels.items()}


@pytest.mark.skipif("PIN_KEYS" not in os.environ, reason="only to write the keys anew")
def test_pin() -> None:
    pinned = json.loads(PINNED.read_text())
    found = {target: {n: _keys(n, target) for n in names()} for target in pinned}
    PINNED.write_text(json.dumps(found, indent=0, separators=(",", ":"), sort_keys=True))


@pytest.mark.parametrize("target", ["cortex-a72", "skylake-avx512"])
@pytest.mark.parametrize("network", [name for name in CHECKED if name in names()])
def test_keys_are_as_they_were_pinned(network: str, target: str) -> None:
    pinned = json.loads(PINNED.read_text())
    assert set(pinned[target]) == set(names())
    assert _keys(network, target) == pinned[target][network]
