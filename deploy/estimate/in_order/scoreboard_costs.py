"""Costs of runs of instructions on cores that issue in order, by the scoreboard."""

from __future__ import annotations

from collections.abc import Sequence

from shuffledeploy.deploy.estimate.block_costs import BlockCost, ModelledCore
from shuffledeploy.deploy.estimate.disassembly import disassemble
from shuffledeploy.deploy.estimate.in_order.dual_issue import cycles_of


def cost_in_order(core: ModelledCore, codes: Sequence[bytes]) -> list[BlockCost]:
    """Cost runs of instructions; both forms of a cost are the same.

    Raises
    ------
    Failure
        One of them cannot be read.
    """
    cycles = (cycles_of(lines, core.name) for lines in disassemble(core, codes))
    return [BlockCost(taken, taken) for taken in cycles]
