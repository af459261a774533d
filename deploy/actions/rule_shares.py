"""How much of an inference the kernels by TVM's own rules take."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from shuffledeploy.compiler.bundle.folder import Bundle
from shuffledeploy.deploy.benchmark.kernel_engine import KernelTimer
from shuffledeploy.deploy.benchmark.native import compiled
from shuffledeploy.deploy.devices.device_names import parse_device_name
from shuffledeploy.deploy.estimate.instruction_counts import kernel_behind
from shuffledeploy.deploy.presentation.rule_table import RuleShares
from shuffledeploy.deploy.runtime.execution import open_network
from shuffledeploy.deploy.runtime.latency import count_instructions

RUNS = 20


def rule_shares(bundle: Bundle, device: str) -> RuleShares | None:
    """Measure the shares: instructions on an emulated board, time on this machine.

    Parameters
    ----------
    bundle : Bundle
        With kernels by TVM's own rules, known to answer right.
    device : str
        Where it runs.

    Returns
    -------
    RuleShares or None
        ``None`` where the device tells neither.
    """
    kind = parse_device_name(device).kind
    if kind == "local":
        found, of = _times(bundle), "time (measured)"
    elif kind == "emulated":
        with open_network(bundle, device, None) as network:
            if not network.device.can_count:
                return None
            counted = count_instructions(network)
        found = {name: count / counted.total for name, count in counted.kernels.items()}
        of = "instructions (counted)"
    else:
        return None
    rules = {entry.name: found.get(entry.name, 0.0) for entry in bundle.manifest.kernels_by_rules}
    return RuleShares(dict(sorted(rules.items(), key=lambda rule: -rule[1])), of)


def _times(bundle: Bundle) -> dict[str, float]:
    """Time each call on this machine; give each kernel's share of all calls."""
    timer = KernelTimer(str(bundle.library), compiled("instrument"))
    timer.set_input(*bundle.reference_inputs()[0])
    names = timer.calls()["names"]
    medians = np.median(np.asarray(timer.times(RUNS)["calls"], np.float64), axis=0)
    # The shortest call does nothing: what it takes is the instrument's.
    own = medians - medians.min()
    times: defaultdict[str, float] = defaultdict(float)
    for name, time in zip(names, own, strict=True):
        times[kernel_behind(str(name), bundle.manifest)] += float(time / own.sum())
    return dict(times)
