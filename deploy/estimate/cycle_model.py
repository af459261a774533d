"""What turns executed blocks into estimated cycles of one core, and says where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shuffledeploy.compiler.cores import CORES, scheduling_of
from shuffledeploy.deploy.estimate.block_costs import BlockCosts, CostRuns, ModelledCore
from shuffledeploy.deploy.estimate.code_images import Image
from shuffledeploy.deploy.estimate.cycles import (
    ESTIMATOR_VERSION,
    X86_ESTIMATOR_VERSION,
    CycleEstimate,
    regions_of,
    sum_cycles,
)
from shuffledeploy.deploy.estimate.executed_blocks import Block
from shuffledeploy.deploy.estimate.in_order.scoreboard_costs import cost_in_order
from shuffledeploy.deploy.estimate.llvm_tools import GOOD_RELEASE, ensure_llvm_tools
from shuffledeploy.deploy.estimate.loop_paths import regions_by_jumps
from shuffledeploy.deploy.estimate.mca_costs import cost_by_mca
from shuffledeploy.deploy.estimate.remembered_costs import RememberedCosts


class CycleModel:
    """Estimates cycles of what was executed, see `deploy.estimate.cycles`.

    Parameters
    ----------
    architecture, core : str
        ``aarch64`` or ``x86_64``, and LLVM's name of the core whose cycles are wanted.
    workers : int
        Processes at once; the estimate does not depend on it.
    remembered_in : Path, optional
        Folder of the costs that earlier runs found; in the project's cache by default.

    Attributes
    ----------
    source : str
        Part of a record's provenance: scores of different sources are not compared.

    Raises
    ------
    Failure
        When there is no llvm-mca and none can be fetched.
    """

    def __init__(
        self, architecture: str, core: str, workers: int = 1, remembered_in: Path | None = None
    ) -> None:
        tools = ensure_llvm_tools()
        cost: CostRuns = cost_by_mca
        # Older releases of LLVM shared some models that newer ones have.
        model = scheduling_of(core) if tools.release >= GOOD_RELEASE else None
        by = f"{model + ', ' if model else ''}llvm-mca {tools.version}"
        if core in CORES and CORES[core].scheduling.in_order:
            cost, by = cost_in_order, "measured costs of instructions, issued in order"
        version = X86_ESTIMATOR_VERSION if architecture == "x86_64" else ESTIMATOR_VERSION
        self.source = f"estimated: cycles of {core} code by estimator {version}, {by}"
        self._regions_of = regions_by_jumps if architecture == "x86_64" else regions_of
        remembered = RememberedCosts(f"{architecture}, {self.source}", remembered_in)
        modelled = ModelledCore(tools, architecture, core)
        self._costs = BlockCosts(modelled, cost, workers, remembered)

    def estimate(
        self, executed: Sequence[tuple[Sequence[Block], Image]]
    ) -> list[CycleEstimate | str]:
        """Estimate the cycles of several executions together.

        Parameters
        ----------
        executed : sequence
            The translation blocks of each, and the code they lie in.

        Returns
        -------
        list of CycleEstimate or str
            In place of an estimate, why there is none.
        """
        regions = [self._regions_of(blocks, image) for blocks, image in executed]
        costs = self._costs.of({region.code for own in regions for region in own})
        return [sum_cycles(own, costs) for own in regions]
