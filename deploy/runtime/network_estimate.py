"""Estimated cycles of a whole network: the sum over its kernels, as the tuner estimates each."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from shuffledeploy.compiler.bundle.folder import Bundle
from shuffledeploy.compiler.cores import scheduling_of
from shuffledeploy.deploy.devices.opening import Device
from shuffledeploy.deploy.estimate.board_cycles import LEFT_OUT, BoardCycles, cycles_on
from shuffledeploy.deploy.estimate.boards import Board
from shuffledeploy.deploy.estimate.code_images import read_image
from shuffledeploy.deploy.estimate.cycle_model import CycleModel
from shuffledeploy.deploy.estimate.elf_symbols import function_at, read_functions
from shuffledeploy.deploy.estimate.executed_blocks import Block, memory_events_of
from shuffledeploy.deploy.estimate.instruction_counts import InstructionCounts, kernel_behind
from shuffledeploy.deploy.estimate.memory_cycles import CodePiece
from shuffledeploy.deploy.runtime.execution import RunningNetwork, open_network
from shuffledeploy.deploy.runtime.latency import count_library
from shuffledeploy.model.errors import Failure, UsageError


@dataclasses.dataclass(frozen=True)
class Cycles:
    """Cycles of one inference. The kind of these figures is: estimated.

    Attributes
    ----------
    total : float
        Of the network's library: caches hit, branches predicted, no other work on the core. What
        the runtime around it does is not in it.
    iterations, throughput : float
        The two forms whose mean it is, see :class:`deploy.estimate.cycles.CycleEstimate`.
    kernels : dict
        By kernel, most first.
    core, source : str
        The core, and where the estimate comes from.
    on_board : BoardCycles or None
        With what memory adds on a board, where one was named.
    """

    total: float
    iterations: float
    throughput: float
    kernels: dict[str, float]
    core: str
    source: str
    on_board: BoardCycles | None = None

    def milliseconds(self, clock_ghz: float) -> float:
        """Turn cycles into time at a clock that somebody states. Estimated too."""
        return self.total / clock_ghz / 1e6


def estimate_network(network: RunningNetwork, board: Board | None = None) -> Cycles:
    """Estimate the cycles of one warmed inference of the stored reference input.

    Parameters
    ----------
    network : RunningNetwork
        On an emulated device.
    board : Board, optional
        Add what memory costs there.

    Raises
    ------
    UsageError
        The device is not emulated, LLVM has no scheduling model for its core, or the board has
        another core.
    Failure
        There is no llvm-mca, or it does not understand the code.
    """
    core = network.device.information.cpu or "unknown core"
    if board is not None:
        require_core_of(board, network.device)
    if scheduling_of(core) is None:
        raise UsageError(f"LLVM has no scheduling model for {core}: no cycles can be estimated")
    counted = count_library(network, board.caches if board else None)
    model = CycleModel("aarch64", core)
    return estimate_library(counted, network.bundle, model, core, board)


def estimate_bundle(bundle: Bundle, board: Board) -> BoardCycles:
    """Estimate one inference of a bundle on a board; an emulated core is started for it.

    Raises
    ------
    UsageError
        LLVM has no scheduling model for the board's core.
    Failure
        The emulated device cannot be had, or the code is not understood.
    """
    with open_network(bundle, f"emulated:{board.core}") as network:
        on_board = estimate_network(network, board).on_board
    assert on_board is not None
    return on_board


def time_on(board: Board) -> Callable[[Bundle], float]:
    """Give what estimates the milliseconds of a bundle on a board, see `estimate_bundle`."""
    return lambda bundle: estimate_bundle(bundle, board).milliseconds


def on_board_json(cycles: BoardCycles | None) -> dict[str, Any]:
    """Give ``on_board`` for a JSON file, nothing where no board was named."""
    if cycles is None:
        return {}
    sums = {"total": cycles.total, "milliseconds": cycles.milliseconds, "leaves_out": LEFT_OUT}
    where = {"board": cycles.board, "clock_ghz": cycles.clock_ghz}
    return {"on_board": {"kind": "estimated", **where, **cycles.cycles._asdict(), **sums}}


def require_core_of(board: Board, device: Device) -> None:
    """Refuse a device with another core than a board's; one that does not tell its core is taken.

    Raises
    ------
    UsageError
        It has another.
    """
    core = device.information.cpu
    if core is not None and core != board.core:
        raise UsageError(
            f"{board.name} has a {board.core}, {device.name} a {core}: leave out --device"
        )


def estimate_library(
    counted: InstructionCounts, bundle: Bundle, model: CycleModel, core: str,
    board: Board | None = None,
) -> Cycles:  # fmt: skip
    """Estimate the cycles of what was executed of a library.

    Functions are costed apart: what lies side by side in a library is no nest of loops.

    Parameters
    ----------
    counted : InstructionCounts
        What was executed; addresses are offsets in the library.
    bundle : Bundle
        Built for AArch64.
    model : CycleModel
        Of the core.
    core : str
        The core's name.
    board : Board, optional
        Add what memory costs there: counted with its caches simulated.

    Raises
    ------
    Failure
        When llvm-mca does not understand the code, or no caches were simulated.
    """
    functions, image = read_functions(bundle.library), read_image(bundle.library)
    blocks: defaultdict[str, list[Block]] = defaultdict(list)
    for block in counted.blocks:
        blocks[function_at(functions, block.address)].append(block)
    estimates = model.estimate([(own, image) for own in blocks.values()])
    kernels: defaultdict[str, float] = defaultdict(float)
    pieces: list[CodePiece] = []
    iterations = throughput = 0.0
    for name, estimate in zip(blocks, estimates, strict=True):
        if isinstance(estimate, str):
            raise Failure(f"the cycles of {name} cannot be estimated: {estimate}")
        iterations += estimate.iterations
        throughput += estimate.throughput
        kernels[kernel_behind(name, bundle.manifest)] += estimate.cycles
        if board is not None:
            pieces.append(_piece(name, estimate.cycles, blocks[name]))
    by_cycles = dict(sorted(kernels.items(), key=lambda kernel: -kernel[1]))
    total = (iterations + throughput) / 2
    on_board = cycles_on(board, pieces) if board else None
    return Cycles(total, iterations, throughput, by_cycles, core, model.source, on_board)


def _piece(name: str, cycles: float, blocks: Sequence[Block]) -> CodePiece:
    events = memory_events_of(blocks)
    if events is None:
        raise Failure(f"no caches were simulated for {name}")
    return CodePiece(cycles, events)
