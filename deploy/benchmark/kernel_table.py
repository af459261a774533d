"""Where the time of one inference goes: each kernel beside the core's ceilings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from shuffledeploy.compiler.bundle.manifest import Manifest
from shuffledeploy.deploy.estimate.instruction_counts import kernel_behind


@dataclass(frozen=True)
class KernelRow:
    """One kernel of one network, all of its calls in one inference together.

    Attributes
    ----------
    model, resolution, kernel : str
        Names.
    calls : int
        In one inference.
    microseconds : float
        Measured while the network ran: the median of each call, less the instrument's own time.
    share_of_time : float
        Of the whole inference.
    multiply_adds : int
        Counted from shapes.
    share_of_peak : float or None
        Of the multiply-add loop's rate; None for a kernel that has no multiply-adds.
    bytes : int
        Of its tensors, constants among them, each counted once a call.
    share_of_bandwidth : float or None
        Of what the core streams from memory; beyond 1 where the tensors come from a cache.
    record : bool
        Whether a tuning record was applied.
    """

    model: str
    resolution: str
    kernel: str
    calls: int
    microseconds: float
    share_of_time: float
    multiply_adds: int
    share_of_peak: float | None
    bytes: int
    share_of_bandwidth: float | None
    record: bool


@dataclass(frozen=True)
class MachineOverhead:
    """What the virtual machine takes beside the kernels it calls.

    Attributes
    ----------
    whole_microseconds : float
        An inference without the instrument, in the same process and rounds.
    kernels_microseconds : float
        Sum of the kernels.
    overhead_microseconds : float
        An inference less the kernels of the instrumented one next to it, median over these pairs:
        the virtual machine, the call from Python, and the noise of the difference.
    own_calls_microseconds : float
        What the machine's own functions take of it, measured as kernels are.
    other_calls : int
        Calls of the machine's own functions (memory, checks of shapes) in one inference.
    """

    model: str
    resolution: str
    whole_microseconds: float
    kernels_microseconds: float
    overhead_microseconds: float
    own_calls_microseconds: float
    kernel_calls: int
    other_calls: int

    def to_json(self) -> dict[str, Any]:
        """Give the fields."""
        return asdict(self)


def tabulate(
    model: str,
    resolution: str,
    calls: Mapping[str, Sequence[Any]],
    times: Mapping[str, Sequence[Any]],
    manifest: Manifest,
    ceilings: Mapping[str, float] | None,
) -> tuple[list[KernelRow], MachineOverhead]:
    """Make the table of one network.

    Parameters
    ----------
    model, resolution : str
        For the rows.
    calls, times : dict
        What :class:`deploy.benchmark.kernel_engine.KernelTimer` gives.
    manifest : Manifest
        Tells of the kernels.
    ceilings : dict or None
        ``multiply_adds_per_s`` and ``bytes_per_s``.

    Returns
    -------
    rows : list of KernelRow
        The slowest first.
    overhead : MachineOverhead
        What is left.
    """
    entries = manifest.called
    names = [kernel_behind(str(name), manifest) for name in calls["names"]]
    each = np.asarray(times["calls"], np.float64)
    # The shortest call does nothing: what it takes is the instrument's.
    each = np.maximum(each - np.median(each, axis=0).min(), 0.0) * 1e-3
    medians = np.median(each, axis=0)
    whole = float(np.median(times["whole"])) * 1e-3
    rows = []
    for entry in entries:
        places = [place for place, name in enumerate(names) if name == entry.name]
        if not places:
            continue
        time = float(sum(medians[place] for place in places))
        work = entry.multiply_adds * len(places)
        given = int(sum(calls["bytes"][place] for place in places))
        moved = given + entry.constant_bytes * len(places)
        rows.append(
            KernelRow(
                model, resolution, entry.name, len(places), time, time / whole, work,
                _share(work, time, ceilings, "multiply_adds_per_s"), moved,
                _share(moved, time, ceilings, "bytes_per_s"), entry.record,
            )
        )  # fmt: skip
    spent = sum(row.microseconds for row in rows)
    count = sum(row.calls for row in rows)
    is_kernel = np.isin(names, [entry.name for entry in entries])
    beside = np.asarray(times["whole"], np.float64) * 1e-3 - each[:, is_kernel].sum(axis=1)
    overhead = MachineOverhead(
        model, resolution, whole, spent, float(np.median(beside)),
        float(medians[~is_kernel].sum()), count, len(names) - count,
    )  # fmt: skip
    return sorted(rows, key=lambda row: -row.microseconds), overhead


def _share(
    amount: float, microseconds: float, ceilings: Mapping[str, float] | None, ceiling: str
) -> float | None:
    if ceilings is None or not amount or microseconds <= 0:
        return None
    return amount / (microseconds * 1e-6) / ceilings[ceiling]
