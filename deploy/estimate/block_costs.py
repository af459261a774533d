"""What straight runs of instructions cost on a core at steady state.

Each run is modelled as if it were looping on itself, every load hitting the first-level cache and
every branch predicted. A run is costed once and remembered by its bytes, over runs of the program
too. What costs them is `mca_costs.py` for cores that execute out of order, `in_order` for others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from shuffledeploy.deploy.estimate.llvm_tools import LlvmTools
from shuffledeploy.model.errors import Failure

if TYPE_CHECKING:
    from shuffledeploy.deploy.estimate.remembered_costs import RememberedCosts


@dataclass(frozen=True)
class ModelledCore:
    """A core, and the tools that know it.

    Attributes
    ----------
    tools : LlvmTools
        LLVM's tools.
    architecture, name : str
        ``aarch64`` or ``x86_64``, and LLVM's name of the core (``-mcpu``).
    """

    tools: LlvmTools
    architecture: str
    name: str


@dataclass(frozen=True)
class BlockCost:
    """Cycles of one execution of a run of instructions. Their kind is: estimated.

    Attributes
    ----------
    iterations : float
        What one more iteration of it adds, between two numbers of iterations: knows latencies and
        what depends on what.
    throughput : float
        Its reciprocal throughput: knows only how many units of the core are how long taken. Of a
        core that issues in order the same as `iterations`.
    outlying : tuple of str
        Instructions with a suspiciously large cost.
    """

    iterations: float
    throughput: float
    outlying: tuple[str, ...] = ()


#: What costs many runs of instructions together; fails for all where one cannot be read.
CostRuns: TypeAlias = Callable[[ModelledCore, Sequence[bytes]], list[BlockCost]]


class BlockCosts:
    """Costs of runs of instructions on one core; a run is costed once.

    Parameters
    ----------
    core : ModelledCore
        The core.
    cost : CostRuns
        What costs them.
    workers : int
        How many threads cost at once. The costs do not depend on it.
    remembered : RememberedCosts, optional
        What earlier runs found; what is new is added.
    """

    def __init__(
        self,
        core: ModelledCore,
        cost: CostRuns,
        workers: int = 1,
        remembered: RememberedCosts | None = None,
    ) -> None:
        self._core = core
        self._cost = cost
        self._workers = workers
        self._remembered = remembered
        self._known: dict[bytes, BlockCost | str] = {}

    def of(self, codes: Collection[bytes]) -> dict[bytes, BlockCost | str]:
        """Cost runs of instructions.

        Returns
        -------
        dict
            For each run's bytes its cost, or why there is none.
        """
        if self._remembered is not None:
            for code in set(codes) - self._known.keys():
                if (cost := self._remembered.find(code)) is not None:
                    self._known[code] = cost
        new = sorted(set(codes) - self._known.keys())
        shares = [new[start :: self._workers] for start in range(self._workers)]
        with ThreadPoolExecutor(self._workers) as pool:
            for costs in pool.map(self._cost_all, shares):
                self._known.update(costs)
                if self._remembered is not None:
                    # A refusal may have been a tool's bad moment: only costs are kept.
                    self._remembered.add(
                        {code: c for code, c in costs.items() if isinstance(c, BlockCost)}
                    )
        return {code: self._known[code] for code in codes}

    def _cost_all(self, codes: Sequence[bytes]) -> dict[bytes, BlockCost | str]:
        """Cost many runs together; where one spoils it for all, one by one."""
        if not codes:
            return {}
        try:
            return dict(zip(codes, self._cost(self._core, codes), strict=True))
        except Failure as error:
            if len(codes) == 1:
                return {codes[0]: str(error)}
            middle = len(codes) // 2
            return {**self._cost_all(codes[:middle]), **self._cost_all(codes[middle:])}
