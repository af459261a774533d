"""How fast: measured on a real device, counted on an emulated one, never the one for the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from shuffledeploy.deploy.devices.opening import Device
from shuffledeploy.deploy.devices.processor_state import (
    ProcessorReadings,
    ProcessorState,
    read_processor,
    summarize,
)
from shuffledeploy.deploy.estimate.caches import Caches
from shuffledeploy.deploy.estimate.instruction_counts import InstructionCounts
from shuffledeploy.deploy.runtime.defaults import RUNS
from shuffledeploy.deploy.runtime.execution import LoadedNetwork, RunningNetwork
from shuffledeploy.deploy.runtime.thread_pool import use_threads
from shuffledeploy.model.errors import UsageError

#: Single runs of each network, and the seconds after which fewer will do.
BATCH, BUDGET_S = 5, 15.0
LEAST_BATCHES = 4
#: Of a network that nobody compiled for more.
THREADS = 1


@dataclass(frozen=True)
class Latency:
    """Time of one inference. The kind of these figures is: measured.

    Attributes
    ----------
    median_ms, p10_ms, p90_ms : float
        Of all runs, milliseconds, by the device's own clock, without transfers.
    runs : int
        Single runs.
    threads : int
        Threads that computed it.
    core : str
        The processor, as LLVM names it, or "unknown core".
    name : str or None
        What the device calls itself.
    processor : ProcessorReadings or None
        The core, its clock, its temperature; None where the device tells nothing.
    """

    median_ms: float
    p10_ms: float
    p90_ms: float
    runs: int
    threads: int
    core: str
    name: str | None = None
    processor: ProcessorReadings | None = None

    @property
    def place(self) -> str:
        """Name the device, its core and what that did."""
        named = f"{self.name} ({self.core})" if self.name else self.core
        state = str(self.processor or "")
        return f"{named}, {state}" if state else named


@dataclass(frozen=True)
class Instructions:
    """Instructions of one inference. The kind of these figures is: counted.

    Attributes
    ----------
    total : int
        Executed in the network's library; exactly repeatable.
    process : int
        Executed by the whole process on the board: the virtual machine, memory allocation and the
        RPC call too. Varies a little.
    kernels : dict
        By kernel, most first.
    core : str
        The emulated core.
    """

    total: int
    process: int
    kernels: dict[str, int]
    core: str


def require_real(device: Device) -> None:
    """Refuse to time an emulated board.

    Raises
    ------
    UsageError
        It is one: its times are QEMU's, and would be a lie about any ARM core.
    """
    if device.is_emulated:
        raise refuse_times(device.name)


def refuse_times(device: str) -> UsageError:
    """Say why an emulated device is not timed."""
    return UsageError(
        f"{device} is emulated and its times say nothing about an ARM core: count its"
        " instructions instead, or name a real --device"
    )


def measure_latency(network: RunningNetwork, *, runs: int = RUNS) -> Latency:
    """Measure one network; see :func:`measure_interleaved`."""
    return measure_interleaved([network], runs=runs)[0]


def measure_interleaved(
    networks: Sequence[RunningNetwork],
    *,
    runs: int = RUNS,
    budget_s: float = BUDGET_S,
    progress: Callable[[], None] = lambda: None,
) -> list[Latency]:
    """Measure networks in turns, so that noise on the machine hits all alike.

    Parameters
    ----------
    networks : sequence of RunningNetwork
        On one device or several; each runs its stored reference input.
    runs : int
        Single runs of each, in turns of `BATCH`.
    budget_s : float
        Seconds for each network, after which the turns end, but never before the fourth.
    progress : Callable
        Called after each turn of one network.

    Returns
    -------
    list of Latency
        One for each network.

    Raises
    ------
    UsageError
        A device is emulated.
    """
    for network in networks:
        require_real(network.device)
        use_threads(network.device, network.bundle.manifest.threads)
        network.set_inputs(network.bundle.reference_inputs()[0])
        network.invoke()
    seconds: list[list[float]] = [[] for _ in networks]
    states = [_read_state(network) for network in networks]
    batch = min(runs, BATCH)
    deadline = time.monotonic() + budget_s * len(networks)
    for turn in range(-(-runs // batch)):
        if turn >= LEAST_BATCHES and time.monotonic() > deadline:
            break
        for network, times, read in zip(networks, seconds, states, strict=True):
            use_threads(network.device, network.bundle.manifest.threads)
            times.extend(network.times(batch))
            read.extend(_read_state(network))
            progress()
    measured = zip(networks, seconds, states, strict=True)
    return [_summary(network, times, read) for network, times, read in measured]


def _read_state(network: RunningNetwork) -> list[ProcessorState]:
    """Read the clock and the temperature, where the device tells them."""
    state = read_processor(network.device.session)
    return [] if state is None else [state]


def count_instructions(network: LoadedNetwork) -> Instructions:
    """Count the instructions of one warmed inference of the stored reference input.

    Raises
    ------
    UsageError
        The device does not count.
    """
    device = network.device
    counted = count_library(network)
    process = device.count(network.invoke, None)
    core = device.information.cpu or "unknown core"
    # A standalone library keeps no names of kernels.
    is_bundle = isinstance(network, RunningNetwork)
    kernels = counted.by_kernel(network.bundle.manifest) if is_bundle else {}
    return Instructions(counted.total, process.total, kernels, core)


def count_library(network: LoadedNetwork, caches: Caches | None = None) -> InstructionCounts:
    """Count what one warmed inference of the stored reference input executes of the library.

    Parameters
    ----------
    network : LoadedNetwork
        On a device that counts.
    caches : Caches, optional
        Simulate these too, from the warming run on.

    Raises
    ------
    UsageError
        The device does not count.
    """
    device = network.device
    if not device.can_count:
        raise UsageError(
            f"{device.name} cannot count instructions: an emulated board can"
            " (--device emulated), for a library built for ARM"
        )
    # The emulator counts exactly what one thread executes: it computes all parts.
    if network.bundle.manifest.threads > 1:
        use_threads(device, 1)
    network.set_inputs(network.bundle.reference_inputs()[0])
    if caches is not None:
        device.simulate_caches(caches)
    network.invoke()
    return device.count(network.invoke, network.library)


def _summary(
    network: RunningNetwork, seconds: Sequence[float], states: Sequence[ProcessorState]
) -> Latency:
    device, threads = network.device, network.bundle.manifest.threads
    low, median, high = np.percentile(seconds, [10, 50, 90]) * 1e3
    told = device.information
    core = told.cpu or f"unknown {told.architecture or ''} core"
    return Latency(
        float(median), float(low), float(high), len(seconds),
        use_threads(device, threads), core, told.name, summarize(states),
    )  # fmt: skip
